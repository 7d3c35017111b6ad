//! The neighbours of all cells: from the graphs of the files into an archive.

use super::places::Places;
use crate::cell::CellSource;
use crate::h5ad::{GraphRows, H5ad, H5adError};
use crate::prepare::PrepareError;
use crate::store::NeighborWriter;

/// Cells whose neighbours are read together.
const CELLS_TOGETHER: u64 = 1 << 16;

/// Writes the neighbours that `obsp.<name>` of each file tells of: rows of the archive from now
/// on. Those of shuffled cells are held in memory, as any may come next.
///
/// # Errors
/// A file without such a graph; unreadable data; a full disk.
pub(super) fn write_neighbors(
    files: &[H5ad],
    places: &Places,
    name: &str,
    mut writer: NeighborWriter,
) -> Result<(), PrepareError> {
    let place_of = places.places();
    let mut held: Vec<(u64, GraphRows)> = Vec::new();
    let mut cells = Vec::new();
    for (file, offset) in files.iter().zip(&places.offsets) {
        for (first, rows) in parts(file, name)? {
            let rows = rows?;
            if place_of.is_some() {
                held.push((offset + first, rows));
                continue;
            }
            for row in 0..rows.starts.len().saturating_sub(1) {
                let (others, weights) = neighbors(&rows, row);
                cells.clear();
                cells.extend(others.iter().map(|cell| offset + u64::from(*cell)));
                writer.push(&narrow(&cells), weights)?;
            }
        }
    }
    for cell in places.order.iter().flatten() {
        let part = held.partition_point(|(first, _)| first <= cell);
        let Some((first, rows)) = part.checked_sub(1).and_then(|part| held.get(part)) else {
            continue;
        };
        let offset = places.offsets.partition_point(|start| start <= cell);
        let offset = offset.checked_sub(1).and_then(|at| places.offsets.get(at));
        let (others, weights) = neighbors(rows, (cell - first) as usize);
        let place = |other: &u32| {
            let other = offset.copied().unwrap_or(0) + u64::from(*other);
            let place = place_of.as_ref().and_then(|of| of.get(other as usize));
            place.copied().unwrap_or(u64::MAX)
        };
        cells.clear();
        cells.extend(others.iter().map(place));
        writer.push(&narrow(&cells), weights)?;
    }
    Ok(writer.finish()?)
}

/// The graph of a file in parts, each with its first cell.
fn parts<'a>(
    file: &'a H5ad,
    name: &str,
) -> Result<impl Iterator<Item = (u64, Result<GraphRows, H5adError>)> + 'a, H5adError> {
    let (graph, num_cells) = (file.graph(name)?, file.num_cells());
    let starts = (0..num_cells).step_by(CELLS_TOGETHER as usize);
    Ok(starts.map(move |start| {
        let end = num_cells.min(start + CELLS_TOGETHER);
        (start, graph.read(start..end))
    }))
}

fn neighbors(rows: &GraphRows, row: usize) -> (&[u32], &[f32]) {
    let within = rows.starts.get(row).zip(rows.starts.get(row + 1));
    let within = within.map_or(0..0, |(start, end)| *start..*end);
    let own = rows.cells.get(within.clone()).zip(rows.weights.get(within));
    own.unwrap_or_default()
}

/// As 32 bits; what does not fit is no cell, which the writer refuses.
fn narrow(cells: &[u64]) -> Vec<u32> {
    let narrow = cells.iter().map(|cell| u32::try_from(*cell));
    narrow.map(|cell| cell.unwrap_or(u32::MAX)).collect()
}
