//! Which rank this process is, read from the environment as the usual starters set it.
//!
//! | starter | variables | how the ranks find one another |
//! |---|---|---|
//! | `gene-bert launch`, torchrun, PyTorchJob, Ray | `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT` | at rank 0's host and port |
//! | Open MPI's mpirun | `OMPI_COMM_WORLD_RANK`, `_SIZE`, `_LOCAL_RANK`, `_LOCAL_SIZE` | mpirun tells |
//! | MPICH's mpirun, srun `--mpi=pmi2` | `PMI_RANK`, `PMI_SIZE`, `MPI_LOCALRANKID`, `MPI_LOCALNRANKS` | mpirun or srun tells |
//! | srun | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`, `SLURM_LOCALID` | as above with `MASTER_ADDR`, else srun tells |
//!
//! The starter of the library itself wins over the others' variables. What it tells is for MPI: ranks
//! on GPUs always meet at `MASTER_ADDR:MASTER_PORT`, whoever started them.

use std::collections::BTreeMap;

use super::DistError;

/// Port of rank 0 where `MASTER_PORT` is not set, as PyTorch's.
const DEFAULT_PORT: u16 = 29500;

/// A process among those of its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// This process, 0..world.
    pub rank: usize,
    /// Number of processes.
    pub world: usize,
    /// This process among those of its machine.
    pub local_rank: usize,
    /// Processes of its machine, where known.
    pub local_world: Option<usize>,
    /// Host and port of rank 0, where the ranks of MPI find one another by them.
    pub master: Option<(String, u16)>,
    /// The same, whatever MPI does, where somebody has told them.
    pub meeting: Option<(String, u16)>,
    /// The variable that told the rank.
    pub told_by: &'static str,
}

/// Variables of rank, world, local rank and local world.
type Names = [&'static str; 4];

const OPEN_MPI: Names = [
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
];
const PMI: Names = ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"];
const TORCH: Names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"];
const SLURM: Names = [
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    "SLURM_STEP_TASKS_PER_NODE",
];

impl Place {
    /// What the environment of this process says; `None`: it is the only one.
    ///
    /// # Errors
    /// A variable that is no number, or a rank that is not below the number of ranks.
    pub fn from_environment() -> Result<Option<Self>, DistError> {
        Self::read(&std::env::vars().collect())
    }

    fn read(variables: &BTreeMap<String, String>) -> Result<Option<Self>, DistError> {
        let starters = [
            (OPEN_MPI, false),
            (PMI, false),
            (TORCH, true),
            (SLURM, true),
        ];
        for (names, by_master) in starters {
            if let Some(mut place) = of_starter(variables, names)? {
                place.meeting = master(variables, names == TORCH)?;
                if by_master {
                    place.master.clone_from(&place.meeting);
                }
                return Ok((place.world > 1).then_some(place));
            }
        }
        Ok(None)
    }
}

fn of_starter(
    variables: &BTreeMap<String, String>,
    names: Names,
) -> Result<Option<Place>, DistError> {
    let [rank_name, world_name, ..] = names;
    let number = |name: &str| number(variables, name);
    let (Some(rank), Some(world)) = (number(rank_name)?, number(world_name)?) else {
        return Ok(None);
    };
    if rank >= world {
        return Err(DistError::Environment {
            name: rank_name.to_owned(),
            found: rank.to_string(),
            expected: format!("a rank below {world_name}={world}"),
        });
    }
    let [_, _, local_rank, local_world] = names.map(|name| variables.get(name));
    let parsed = |text: Option<&String>| text.and_then(|text| text.parse().ok());
    Ok(Some(Place {
        rank,
        world,
        local_rank: parsed(local_rank).unwrap_or(rank),
        local_world: parsed(local_world),
        master: None,
        meeting: None,
        told_by: rank_name,
    }))
}

/// Host and port where the ranks meet. Where torchrun keeps a store of its own on MASTER_PORT, it
/// is the next port.
fn master(
    variables: &BTreeMap<String, String>,
    always: bool,
) -> Result<Option<(String, u16)>, DistError> {
    let host = match variables.get("MASTER_ADDR") {
        Some(host) => host.clone(),
        None if always => "127.0.0.1".to_owned(),
        None => return Ok(None),
    };
    let port = number(variables, "MASTER_PORT")?.unwrap_or(usize::from(DEFAULT_PORT));
    let agent = variables.get("TORCHELASTIC_USE_AGENT_STORE");
    let port = port + usize::from(agent.is_some_and(|agent| agent == "True"));
    let port = u16::try_from(port).map_err(|_| DistError::Environment {
        name: "MASTER_PORT".to_owned(),
        found: port.to_string(),
        expected: "a port, 1 to 65535".to_owned(),
    })?;
    Ok(Some((host, port)))
}

fn number(variables: &BTreeMap<String, String>, name: &str) -> Result<Option<usize>, DistError> {
    let Some(text) = variables.get(name) else {
        return Ok(None);
    };
    let wrong = |_| DistError::Environment {
        name: name.to_owned(),
        found: text.clone(),
        expected: "a number from 0 up".to_owned(),
    };
    text.trim().parse().map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<Option<Place>, DistError> {
        let pair = |word: &str| {
            let (name, value) = word.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        Place::read(&text.split_whitespace().map(pair).collect())
    }

    #[test]
    fn every_starter_is_understood() {
        let place = |text: &str| {
            let place = read(text).unwrap().unwrap();
            (
                place.rank,
                place.world,
                place.local_rank,
                place.local_world,
                place.master,
            )
        };
        let torch =
            "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=7";
        let at = |port| Some(("a".to_owned(), port));
        assert_eq!(place(torch), (3, 4, 1, Some(2), at(7)));
        let agent = format!("{torch} TORCHELASTIC_USE_AGENT_STORE=True");
        assert_eq!(place(&agent).4, at(8));
        let open_mpi = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=0 \
                        OMPI_COMM_WORLD_LOCAL_SIZE=1";
        assert_eq!(place(open_mpi), (1, 2, 0, Some(1), None));
        assert_eq!(
            place(&format!("{open_mpi} {torch}")).0,
            1,
            "its own starter wins"
        );
        assert_eq!(place("PMI_RANK=1 PMI_SIZE=3"), (1, 3, 1, None, None));
        let told = read(&format!("{open_mpi} MASTER_ADDR=a MASTER_PORT=7"));
        let told = told.unwrap().unwrap();
        assert_eq!((told.master, told.meeting), (None, at(7)));
        let slurm =
            "SLURM_PROCID=5 SLURM_STEP_NUM_TASKS=8 SLURM_LOCALID=1 SLURM_STEP_TASKS_PER_NODE=4(x2)";
        assert_eq!(place(slurm), (5, 8, 1, None, None));
        assert_eq!(place(&format!("{slurm} MASTER_ADDR=a")).4, at(29500));
    }

    #[test]
    fn one_process_is_none_and_nonsense_is_refused() {
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("RANK=0 WORLD_SIZE=1").unwrap(), None);
        assert_eq!(
            read("SLURM_PROCID=0 SLURM_NTASKS=8").unwrap(),
            None,
            "no step"
        );
        for (text, part) in [
            (
                "RANK=2 WORLD_SIZE=2",
                "RANK=2: expected a rank below WORLD_SIZE=2",
            ),
            ("RANK=x WORLD_SIZE=2", "RANK=x: expected a number"),
            ("RANK=0 WORLD_SIZE=2 MASTER_PORT=70000", "MASTER_PORT=70000"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
