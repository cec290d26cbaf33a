//! Puts plan, kernel, ports and workers together.
