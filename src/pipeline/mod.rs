//! Stages, batches and verdicts.
