//! The xfwd lab.
