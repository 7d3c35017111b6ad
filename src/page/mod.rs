//! Pages to look at: one file of HTML with everything in it, nothing from elsewhere.
//!
//! [`document`] puts a page together; its parts are [`html`] (cards, tables, legends), [`svg`] (a
//! frame with axes) and [`curves`]. Colours follow the reader's light or dark mode by CSS alone.

pub mod curves;
pub mod html;
pub mod svg;

use html::text;

const STYLE: &str = include_str!("style.css");

/// A page: `body` and `footer` are HTML, `style` and `script` come behind those of every page.
pub fn document(title: &str, body: &str, footer: &str, style: &str, script: &str) -> String {
    let script = match script {
        "" => String::new(),
        script => format!("<script>\n{script}</script>"),
    };
    format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\
         <title>{}</title>\n<style>\n{STYLE}{style}</style></head>\n<body><main>\n{body}\
         <footer>{footer}</footer></main>{script}</body></html>\n",
        text(title),
    )
}
