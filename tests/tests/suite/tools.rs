//! What the tests break things with does break them, and mends them again.

mod proxies;
mod volumes;
