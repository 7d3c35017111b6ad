//! What sums over the ranks of a run, and which GPU a rank computes on: that of its number among the
//! ranks of its machine (`LOCAL_RANK`), or the only one that its starter lets it see.

use anyhow::{Result, anyhow, bail};

use crate::config::Device;
use crate::dist::Engine;
use crate::dist::place::Place;
use crate::kernels::device::{self, NoGpu};

/// Whether ranks that are to compute on `device` do so on GPUs.
///
/// # Errors
/// A GPU is asked for, and none can be used.
pub(super) fn is_on_gpus(device: Device) -> Result<bool> {
    let refused = |error: NoGpu| anyhow!("--device: {error}\nhint: {}", error.hint());
    device.check().map_err(refused)?;
    Ok(device.gpu().is_some())
}

/// The engine of the rank at `place`, where it is to compute on `device`.
///
/// # Errors
/// As [`is_on_gpus`]; one GPU for several ranks; fewer GPUs than ranks.
pub(super) fn of_rank(device: Device, place: &Place) -> Result<Engine> {
    match is_on_gpus(device)? {
        true => of_gpu(device, place),
        false => Ok(Engine::Mpi),
    }
}

fn of_gpu(device: Device, place: &Place) -> Result<Engine> {
    match device {
        Device::Cuda(gpu) if place.local_world == Some(1) => Ok(Engine::Nccl { gpu }),
        Device::Cuda(gpu) => bail!(
            "--device cuda:{gpu}: the processes of a machine need a GPU each\nhint: --device cuda, or \
             auto, gives each the one of its number"
        ),
        _ => numbered(place.local_rank, device::count()),
    }
}

fn numbered(local_rank: usize, num_gpus: usize) -> Result<Engine> {
    match num_gpus {
        1 => Ok(Engine::Nccl { gpu: 0 }),
        _ if local_rank < num_gpus => Ok(Engine::Nccl { gpu: local_rank }),
        _ => bail!(
            "process {local_rank} of this machine needs a GPU of its own, and there are {num_gpus}\n\
             hint: start at most {num_gpus} processes here, or compute on the CPU: --device cpu"
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place(local_world: Option<usize>) -> Place {
        Place {
            rank: 3,
            world: 4,
            local_rank: 1,
            local_world,
            master: None,
            meeting: None,
            told_by: "RANK",
        }
    }

    #[test]
    fn each_process_of_a_machine_gets_its_own_gpu() {
        let gpu = |gpu| Engine::Nccl { gpu };
        assert_eq!(numbered(1, 4).unwrap(), gpu(1));
        assert_eq!(numbered(1, 1).unwrap(), gpu(0), "its starter shows it one");
        let few = numbered(2, 2).unwrap_err().to_string();
        assert!(few.contains("at most 2 processes"), "{few}");
        let on_cpu = of_rank(Device::Cpu, &place(Some(2)));
        assert_eq!(on_cpu.unwrap(), Engine::Mpi);
        let of_gpu = |local_world| of_gpu(Device::Cuda(2), &place(local_world));
        assert_eq!(of_gpu(Some(1)).unwrap(), gpu(2));
        for shared in [Some(2), None] {
            let refused = of_gpu(shared).unwrap_err().to_string();
            assert!(
                refused.contains("hint: --device cuda, or auto"),
                "{refused}"
            );
        }
    }
}
