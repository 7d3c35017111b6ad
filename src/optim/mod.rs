//! AdamW with saved state, the global gradient norm, and learning-rate schedules.
//!
//! [`AdamW`] holds two moments per parameter and moves the weights in place, with the gradient's
//! scale (clipping, mean over labels) folded into the one pass; [`AdamW::guarded_step`] leaves out
//! steps that are not finite. [`global_norm`] is the same for any number of threads. [`Division`]
//! shares the moments out over ranks. [`Schedule`] maps a step to a learning rate. Knows nothing of
//! models and loops: it sees [`crate::parameters`] only.

mod adamw;
mod division;
mod guard;
mod norm;
mod schedule;

pub use adamw::{AdamW, AdamWConfig};
pub use division::Division;
pub use guard::{GROWTH_STEPS, MOST_LOST, Outcome, StepRule, Verdict};
pub use norm::{clip_scale, global_norm};
pub use schedule::{Schedule, ScheduleConfig};
