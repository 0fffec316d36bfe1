//! What recording was told to do.

use crate::config::{Config, Output, Retention, Rotation};

/// See the module.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Settings {
    /// Where records go.
    pub output: Output,
    /// When the active file is set aside.
    pub rotation: Rotation,
    /// When archives are removed.
    pub retention: Retention,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            output: config.output.clone(),
            rotation: config.rotation.clone(),
            retention: config.retention.clone(),
        }
    }
}
