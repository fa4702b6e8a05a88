//! Parts that copies of a world share for as long as they are the same.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// A part of a world. Its hash is made once, however many worlds it is in.
#[derive(Debug, Default)]
pub struct Part<T>(Arc<Inner<T>>);

#[derive(Clone, Debug, Default)]
struct Inner<T> {
    hash: OnceLock<u64>,
    value: T,
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Part<T> {
    /// A part that no other world has yet.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Inner { hash: OnceLock::new(), value }))
    }
}

impl<T: Clone> Part<T> {
    /// The part, to change it in this world only.
    pub fn change(&mut self) -> &mut T {
        let inner = Arc::make_mut(&mut self.0);
        inner.hash = OnceLock::new();
        &mut inner.value
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: Hash> Part<T> {
    fn hash_once(&self) -> u64 {
        *self.0.hash.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            self.0.value.hash(&mut hasher);
            hasher.finish()
        })
    }
}

impl<T: Hash> Hash for Part<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash_once());
    }
}

impl<T: Hash + Eq> PartialEq for Part<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.hash_once() == other.hash_once() && self.0.value == other.0.value
    }
}

impl<T: Hash + Eq> Eq for Part<T> {}
