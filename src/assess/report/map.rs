//! The map of embeddings: a point for each cell, coloured by its label.

use std::fmt::Write;

use crate::assess::map::{Colouring, Map};
use crate::assess::summary::EmbeddingSummary;
use crate::page::html::{card, colour, count, figure, legend, shortened, text};

const SIDE: f64 = 520.0;
const MARGIN: f64 = 12.0;
/// Classes that the legend names; further ones are drawn, but only counted in it.
const NAMED: usize = 40;
/// Colours take turns in so many layers, so that none covers all others.
const LAYERS: usize = 8;

/// Cards with the map, coloured in each way.
pub(super) fn cards(map: &Map, summary: &EmbeddingSummary) -> String {
    let mut out = String::new();
    for colouring in &map.colourings {
        let found = summary
            .labels
            .iter()
            .find(|label| label.category == colouring.name);
        let mut caption = format!(
            "{} cells, {} embeddings of {} numbers.",
            count(map.cells.len() as u64),
            text(&summary.pooling),
            summary.width
        );
        if let Some(label) = found {
            let _ = write!(
                caption,
                " k-means clusters against these labels: ARI {}, NMI {}.",
                figure(label.adjusted_rand_index),
                figure(label.normalized_mutual_information)
            );
            if let Some(silhouette) = label.silhouette {
                let _ = write!(caption, " Silhouette {}.", figure(silhouette));
            }
        }
        let mut numbers = vec![0u64; colouring.names.len()];
        colouring
            .class_of
            .iter()
            .flatten()
            .for_each(|&class| numbers[class as usize] += 1);
        let mut names: Vec<(String, String, bool)> =
            (colouring.names.iter().zip(&numbers).enumerate())
                .filter(|(_, (_, number))| **number > 0)
                .map(|(class, (name, _))| (shortened(name, 36), colour(class), false))
                .collect();
        if names.len() > NAMED {
            let more = names.len() - NAMED;
            names.truncate(NAMED);
            names.push((format!("… {more} more"), "var(--tick)".to_owned(), false));
        }
        let names = legend(
            names
                .iter()
                .map(|(name, colour, _)| (name.as_str(), colour.clone(), false)),
        );
        let both = format!(
            "{names}<div class=grid><div><h3>Neighbours kept together (UMAP)</h3>{}</div>\
             <div><h3>Principal components 1 and 2</h3>{}</div></div>",
            scatter(&map.neighbours, colouring),
            scatter(&map.components, colouring)
        );
        let title = format!("Coloured by {}", colouring.name);
        out += &card(true, &title, &both, &caption);
    }
    out
}

fn scatter(places: &[[f32; 2]], colouring: &Colouring) -> String {
    let [x, y] = [0, 1].map(|axis| bounds(places, axis));
    let scale = (SIDE - 2.0 * MARGIN) / f64::from((x.1 - x.0).max(y.1 - y.0)).max(1e-12);
    let at = |place: &[f32; 2]| {
        let centred =
            |axis: usize, (low, high): (f32, f32)| f64::from(place[axis] - (low + high) / 2.0);
        (
            SIDE / 2.0 + centred(0, x) * scale,
            SIDE / 2.0 - centred(1, y) * scale,
        )
    };
    let radius = (260.0 / (places.len() as f64).sqrt()).clamp(3.2, 9.0);
    let mut paths: Vec<Vec<String>> = vec![vec![String::new(); LAYERS]; colouring.names.len() + 1];
    for (number, (place, class)) in places.iter().zip(&colouring.class_of).enumerate() {
        let class = class.map_or(colouring.names.len(), |class| class as usize);
        let (x, y) = at(place);
        let _ = write!(paths[class][number % LAYERS], "M{x:.1} {y:.1}h0");
    }
    let mut out =
        format!("<svg viewBox=\"0 0 {SIDE} {SIDE}\" role=img aria-label=\"map of cells\">");
    let width = format!("{radius:.1}");
    for layer in 0..LAYERS {
        for (class, path) in paths
            .iter()
            .enumerate()
            .filter(|(_, path)| !path[layer].is_empty())
        {
            let colour = if class == colouring.names.len() {
                "var(--track)".to_owned()
            } else {
                colour(class)
            };
            let _ = write!(
                out,
                "<path class=dots stroke=\"{colour}\" stroke-opacity=.75 stroke-width={width} d=\"{}\"/>",
                path[layer]
            );
        }
    }
    out + "</svg>"
}

fn bounds(places: &[[f32; 2]], axis: usize) -> (f32, f32) {
    let values = || places.iter().map(|place| place[axis]);
    (
        values().fold(f32::INFINITY, f32::min),
        values().fold(f32::NEG_INFINITY, f32::max),
    )
}
