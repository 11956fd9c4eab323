//! On a real cluster of one node, as root.

mod contour;
mod lifecycle;
mod master;
mod network;
mod stages;
mod stand_in;
mod tasks;
mod up;
