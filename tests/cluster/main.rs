//! On a real cluster of one node, which needs root: `make bed-test`.

mod life;
mod master;
mod network;
mod reach;
