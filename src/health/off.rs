//! A build without the feature `health`.

use super::{Change, HealthError, Status, Target};

/// Checks of nothing.
#[derive(Debug)]
#[non_exhaustive]
pub struct Health;

impl Health {
    /// Nothing is checked.
    ///
    /// # Errors
    ///
    /// [`HealthError::NotBuilt`] when there is anything to check.
    pub fn start(
        targets: Vec<Target>,
        _on_change: impl Fn(&[Change]) + Send + 'static,
    ) -> Result<Self, HealthError> {
        let health = Self;
        health.set_targets(targets)?;
        Ok(health)
    }

    /// Nothing is checked.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn set_targets(&self, targets: Vec<Target>) -> Result<(), HealthError> {
        if targets.is_empty() { Ok(()) } else { Err(HealthError::NotBuilt) }
    }

    /// Nothing is known.
    pub fn status(&self) -> Vec<Status> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::HealthCheck;

    #[test]
    fn build_without_checks_refuses_targets_and_nothing_else() {
        let health = Health::start(Vec::new(), |_| {}).unwrap();
        let target = Target {
            id: 1,
            service: "web".to_owned(),
            address: [127, 0, 0, 1].into(),
            port: 80,
            check: HealthCheck::default(),
            path: None,
        };
        let error = health.set_targets(vec![target]).unwrap_err();
        assert!(error.to_string().contains("cargo feature `health`"), "{error}");
    }
}
