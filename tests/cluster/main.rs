//! On a real cluster of one node, as root.

mod life;
mod master;
mod network;
mod reach;
