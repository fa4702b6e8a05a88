//! The walks of the simulator.

mod mutations;
mod walks;
