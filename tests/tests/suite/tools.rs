//! What the tests break things with does break them, and mends them again.

mod hosts;
mod proxies;
mod volumes;
