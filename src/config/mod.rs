//! `lb.toml` to a validated plan: pure, no system call.
