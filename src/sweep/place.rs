//! Where trials run: as many places as trials at a time, each with a device and its share of the
//! cores.
//!
//! | `--devices` | a trial there |
//! |---|---|
//! | `cuda:1` | gets `--device=cuda:1` |
//! | `cpu` | gets `--device=cpu`, and shares the cores with the others |
//! | `cpu:0-3`, `cpu:0-1+4-5` | runs on these cores alone (Linux) |
//!
//! A device named twice takes two trials at a time; more trials at a time than devices are dealt
//! over them in turn. Which trial runs where changes nothing in the choice of trials.

use std::collections::BTreeSet;
use std::str::FromStr;

use anyhow::{Result, bail};

use super::study::Study;
use crate::config::{Device, named};

/// A device to run trials on, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    device: Device,
    /// The cores to run on; empty: any.
    cores: BTreeSet<usize>,
    text: String,
}

impl FromStr for Spot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, cores) = match text.split_once(':') {
            Some(("cpu", cores)) => ("cpu", Some(cores)),
            _ => (text, None),
        };
        let expected = "expected cpu, cpu:0-3 (cores) or cuda:N";
        let device: Device = named(name).map_err(|_| expected.to_owned())?;
        if device == Device::Auto {
            return Err(expected.to_owned());
        }
        Ok(Self {
            device,
            cores: cores.map(read_cores).transpose()?.unwrap_or_default(),
            text: text.to_owned(),
        })
    }
}

/// The cores of `0-3`, `2`, `0-1+4-5`.
fn read_cores(text: &str) -> Result<BTreeSet<usize>, String> {
    let mut all = BTreeSet::new();
    for part in text.split('+') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) if first <= last && last < 1 << 16 => all.extend(first..=last),
            _ => return Err(format!("`{part}`: expected cores, such as 0-3 or 0-1+4-5")),
        }
    }
    Ok(all)
}

/// Where one trial at a time runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What `--device` says, if devices were asked for.
    pub device: Option<Device>,
    /// The cores it is bound to; empty: none.
    pub cores: BTreeSet<usize>,
    /// Its compute threads.
    pub threads: usize,
    /// How it was asked for.
    pub text: Option<String>,
}

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Devices; none: trials choose for themselves.
    pub devices: Vec<Spot>,
    /// Trials at a time; by default one for each device.
    pub parallel: Option<usize>,
    /// Compute threads of each trial; by default its share of the cores.
    pub threads: Option<usize>,
}

impl Wanted {
    /// The places, at least one.
    ///
    /// # Errors
    /// Fewer trials at a time than devices, a device or core that cannot be used, a study that
    /// says itself where to compute.
    pub fn places(&self, study: &Study) -> Result<Vec<Place>> {
        let parallel = self.parallel.unwrap_or(self.devices.len()).max(1);
        if parallel < self.devices.len() {
            bail!(
                "--parallel {parallel} leaves {} of {} devices without a trial\nhint: leave \
                 --parallel out, or name fewer --devices",
                self.devices.len() - parallel,
                self.devices.len()
            );
        }
        if !self.devices.is_empty() {
            study.command.check_takes_device(&study.names())?;
        }
        for spot in &self.devices {
            spot.check()?;
        }
        let dealt: Vec<Option<&Spot>> = (0..parallel)
            .map(|n| self.devices.get(n % self.devices.len().max(1)))
            .collect();
        Ok(dealt.iter().map(|spot| self.place(*spot, &dealt)).collect())
    }

    fn place(&self, spot: Option<&Spot>, all: &[Option<&Spot>]) -> Place {
        let cores = spot.map(|spot| spot.cores.clone()).unwrap_or_default();
        let is_bound = !cores.is_empty();
        let share = if is_bound {
            cores.len() / all.iter().filter(|other| **other == spot).count()
        } else {
            std::thread::available_parallelism().map_or(1, usize::from) / all.len()
        };
        Place {
            device: spot.map(|spot| spot.device),
            text: spot.map(|spot| spot.text.clone()),
            cores,
            threads: self.threads.unwrap_or(share).max(1),
        }
    }
}

impl Spot {
    fn check(&self) -> Result<()> {
        if let Err(error) = self.device.check() {
            bail!("--devices {}: {error}\nhint: {}", self.text, error.hint());
        }
        if !self.cores.is_empty() && !cfg!(target_os = "linux") {
            bail!(
                "--devices {}: trials are bound to cores on Linux only\nhint: name cpu",
                self.text
            );
        }
        let allowed = allowed_cores();
        if let Some(core) = self.cores.iter().find(|core| !allowed.contains(core)) {
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            bail!(
                "--devices {}: this process may not use core {core}\nhint: it may use {}",
                self.text,
                allowed.join(", ")
            );
        }
        Ok(())
    }
}

/// The cores that this process may use; none where the operating system does not tell.
fn allowed_cores() -> BTreeSet<usize> {
    #[cfg(target_os = "linux")]
    if let Ok(set) = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)) {
        let is_set = |core: &usize| set.is_set(*core).unwrap_or(false);
        return (0..nix::sched::CpuSet::count()).filter(is_set).collect();
    }
    BTreeSet::new()
}

/// Does something (starting a child, which inherits it) bound to `cores`; unbound where there are
/// none.
///
/// # Errors
/// The operating system refuses.
pub(super) fn bound_to<T>(
    cores: &BTreeSet<usize>,
    work: impl FnOnce() -> std::io::Result<T>,
) -> std::io::Result<T> {
    #[cfg(target_os = "linux")]
    if !cores.is_empty() {
        use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
        let this_thread = nix::unistd::Pid::from_raw(0);
        let before = sched_getaffinity(this_thread)?;
        let mut set = CpuSet::new();
        for core in cores {
            set.set(*core)?;
        }
        sched_setaffinity(this_thread, &set)?;
        let done = work();
        sched_setaffinity(this_thread, &before)?;
        return done;
    }
    let _ = cores;
    work()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn study(command: &str, parameter: &str) -> Study {
        let text = format!(
            "program: mlm\nmethod: grid\n{command}parameters: {{{parameter}: {{value: 2}}}}\n"
        );
        Study::parse(&text, "s", &[]).unwrap()
    }

    fn wanted(devices: &[&str], parallel: Option<usize>) -> Wanted {
        Wanted {
            devices: devices.iter().map(|text| text.parse().unwrap()).collect(),
            parallel,
            threads: None,
        }
    }

    #[test]
    fn devices_are_read() {
        let spot: Spot = "cpu:0-2+5".parse().unwrap();
        assert_eq!(spot.device, Device::Cpu);
        assert_eq!(spot.cores, BTreeSet::from([0, 1, 2, 5]));
        let spot: Spot = "cuda:3".parse().unwrap();
        assert!(spot.device == Device::Cuda(3) && spot.cores.is_empty());
        for wrong in ["gpu", "auto", "cpu:", "cpu:3-1", "cpu:a", "cuda:x", ""] {
            let said = wrong.parse::<Spot>().unwrap_err();
            assert!(said.contains("expected"), "{wrong}: {said}");
        }
    }

    #[test]
    fn trials_are_dealt_over_devices_and_cores() {
        let study = study("", "seed");
        let cores = allowed_cores();
        let plain = wanted(&[], None).places(&study).unwrap();
        assert_eq!(plain.len(), 1);
        assert!(plain[0].device.is_none() && plain[0].cores.is_empty());
        let core = *cores.iter().next().unwrap();
        let bound = format!("cpu:{core}");
        let places = wanted(&["cpu", &bound], Some(5)).places(&study).unwrap();
        let texts: Vec<&str> = places.iter().filter_map(|p| p.text.as_deref()).collect();
        assert_eq!(texts, ["cpu", &bound, "cpu", &bound, "cpu"]);
        assert_eq!(places[1].cores, BTreeSet::from([core]));
        assert!(places.iter().all(|place| place.threads >= 1));
        let said = wanted(&["cpu", "cpu"], Some(1)).places(&study);
        assert!(said.unwrap_err().to_string().contains("1 of 2 devices"));
        let said = wanted(&["cpu:60000"], None).places(&study);
        assert!(said.unwrap_err().to_string().contains("core 60000"));
    }

    #[test]
    fn a_study_that_cannot_be_told_where_to_compute_is_refused() {
        let one = wanted(&["cpu"], None);
        let own = "command: [run.sh, \"${output_dir}\"]\n";
        for (study, part) in [
            (
                study("", "device: {value: cpu}, seed"),
                "sets `device` itself",
            ),
            (study(own, "x"), "${device}"),
        ] {
            let said = one.places(&study).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
        let own = "command: [run.sh, \"${output_dir}\", \"on=${device}\"]\n";
        assert!(one.places(&study(own, "x")).is_ok());
    }
}
