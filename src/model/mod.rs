//! GeneBERT.
