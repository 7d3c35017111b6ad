//! Picking rows of a matrix, and putting their gradients back: so that a head works on the rows
//! that have a label only.

use candle_core::{Result, Tensor, bail};

use super::lists::Numbers;
use super::profile::span;
use crate::buffers::{from_vec, read, write};

/// The rows at `positions` of x [T, D] → [N, D].
///
/// # Errors
/// A position is beyond T.
pub fn gather(x: &Tensor, positions: impl Into<Numbers>) -> Result<Tensor> {
    let _span = span("labelled rows", 0);
    let positions = &positions.into();
    let (height, width) = x.dims2()?;
    for &position in positions.iter() {
        checked(position, height)?;
    }
    on_gpu!(x, super::cuda::gather(x, positions));
    let mut picked = Vec::with_capacity(positions.len() * width);
    {
        let x = read::<f32>(x)?;
        for &position in positions.iter() {
            let at = position as usize * width;
            picked.extend_from_slice(&x[at..at + width]);
        }
    }
    from_vec(picked, (positions.len(), width))
}

/// The gradient of x [T, D]: the rows of dy [N, D] added at their positions, zero elsewhere.
///
/// # Errors
/// A position is beyond `height`, or there are not as many as rows; on a GPU, one stands twice.
pub fn scatter(dy: &Tensor, positions: impl Into<Numbers>, height: usize) -> Result<Tensor> {
    let _span = span("labelled rows", 0);
    let positions = &positions.into();
    let (count, width) = dy.dims2()?;
    if count != positions.len() {
        bail!("{count} rows for {} positions", positions.len());
    }
    for &position in positions.iter() {
        checked(position, height)?;
    }
    on_gpu!(dy, {
        once(positions)?;
        super::cuda::scatter(dy, positions, height)
    });
    let mut dx = vec![0.0; height * width];
    let dy = read::<f32>(dy)?;
    for (&position, from) in positions.iter().zip(dy.chunks_exact(width.max(1))) {
        let at = position as usize * width;
        for (to, from) in dx[at..at + width].iter_mut().zip(from) {
            *to += from;
        }
    }
    from_vec(dx, (height, width))
}

/// Adds the rows of `values` [R, D] to those numbered `rows`, ascending, of `table` [height, D] in
/// place. f32.
///
/// # Errors
/// Shapes that do not fit, or rows beyond the table or out of order.
pub fn add_rows(table: &Tensor, rows: impl Into<Numbers>, values: &Tensor) -> Result<()> {
    let rows = &rows.into();
    let (height, width) = table.dims2()?;
    let highest = rows.last().map_or(0, |row| *row as usize + 1);
    let ascend = rows.is_sorted_by(|a, b| a < b);
    if values.dims() != [rows.len(), width] || highest > height || !ascend {
        bail!(
            "rows {:?} up to {highest} do not fit a table of {height} × {width}",
            values.shape()
        );
    }
    on_gpu!(table, super::cuda::add_rows(table, rows, values));
    let values = read::<f32>(values)?;
    write(table, |table| {
        for (&row, values) in rows.iter().zip(values.chunks_exact(width.max(1))) {
            let at = row as usize * width;
            for (to, from) in table[at..at + width].iter_mut().zip(values) {
                *to += from;
            }
        }
    })
}

/// Refuses a position that stands twice, as kernels do not add to one row at once.
#[cfg(feature = "cuda")]
fn once(positions: &[u32]) -> Result<()> {
    if positions.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let mut sorted = positions.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => bail!("row {} is given twice", pair[0]),
        None => Ok(()),
    }
}

fn checked(position: u32, height: usize) -> Result<usize> {
    let position = position as usize;
    if position >= height {
        bail!("row {position} of a matrix of {height} rows");
    }
    Ok(position)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn gather_and_scatter_are_transposes() {
        let x = from_vec((0..8).map(|i| i as f32).collect(), (4, 2)).unwrap();
        let picked = gather(&x, &[3, 0]).unwrap();
        assert_eq!(&*read::<f32>(&picked).unwrap(), &[6.0, 7.0, 0.0, 1.0]);
        let back = scatter(&picked, &[3, 0], 4).unwrap();
        assert_eq!(
            &*read::<f32>(&back).unwrap(),
            &[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 6.0, 7.0]
        );
        assert!(gather(&x, &[4]).is_err() && scatter(&picked, &[4, 0], 4).is_err());
        assert_eq!(gather(&x, &[]).unwrap().dims(), [0, 2]);
    }
}
