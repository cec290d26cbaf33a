//! Privileges and limits of this process.
