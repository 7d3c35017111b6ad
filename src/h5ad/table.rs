//! `obs` and `var` tables of every generation: a group of columns, or one compound array.

use std::sync::Arc;

use super::H5adError;
use super::array::type_name;
use super::column::Column;
use super::compound::Compound;
use super::container::{Container, Node};
use super::number::number_of;
use crate::numbers::{Kind, Number};

/// A table of the file.
pub(super) struct Table {
    container: Arc<Container>,
    key: String,
    layout: Layout,
    /// Names of the columns in the file's order, without the index.
    columns: Vec<String>,
    /// The name of the index's member, `None` where there is none.
    index: Option<String>,
}

enum Layout {
    Absent,
    Group,
    Compound(Compound),
}

impl Table {
    /// The table under `key`; an absent one has no columns.
    pub(super) fn open(container: &Arc<Container>, key: &str) -> Result<Table, H5adError> {
        let node = container.node(key)?;
        let attributes = container.attributes(key, &node)?;
        let stored_index = attributes.text("_index").map(str::to_owned);
        let (layout, mut names, index) = match node {
            Node::Absent => (Layout::Absent, Vec::new(), None),
            Node::Group(group) => {
                let members = container.members(key, &group)?;
                let index = stored_index.filter(|name| members.contains(name));
                let index = index.or_else(|| usual_index(&members));
                (Layout::Group, members, index)
            }
            Node::Dataset(dataset) => {
                let compound = Compound::open(container, key, &dataset)?;
                let members = compound.names();
                let index = stored_index.filter(|name| members.contains(name));
                let index = index.or_else(|| usual_index(&members));
                let index = index.or_else(|| members.first().cloned());
                (Layout::Compound(compound), members, index)
            }
        };
        names.retain(|name| name != "__categories" && Some(name) != index.as_ref());
        if let Some(order) = attributes.texts("column-order") {
            let place = |name: &String| order.iter().position(|other| other == name);
            names.sort_by_key(|name| place(name).unwrap_or(usize::MAX));
        }
        let (container, key) = (Arc::clone(container), key.to_owned());
        Ok(Table {
            container,
            key,
            layout,
            columns: names,
            index,
        })
    }

    pub(super) fn column_names(&self) -> &[String] {
        &self.columns
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Which member holds the index.
    pub(super) fn index_name(&self) -> Option<&str> {
        self.index.as_deref()
    }

    /// Names of the rows; `None` where the file holds none.
    pub(super) fn index(&self) -> Result<Option<Vec<String>>, H5adError> {
        let Some(name) = &self.index else {
            return Ok(None);
        };
        Ok(Some(self.read(name)?.into_names()))
    }

    /// The number of rows, without reading them; `None` where the file does not say.
    pub(super) fn num_rows(&self) -> Result<Option<u64>, H5adError> {
        if let Layout::Compound(compound) = &self.layout {
            return Ok(Some(compound.len()));
        }
        let Some(name) = &self.index else {
            return Ok(None);
        };
        let mut key = format!("{}/{name}", self.key);
        let mut node = self.container.node(&key)?;
        if matches!(node, Node::Group(_)) {
            for member in ["codes", "values"] {
                let inner = format!("{key}/{member}");
                if let found @ Node::Dataset(_) = self.container.node(&inner)? {
                    (node, key) = (found, inner);
                    break;
                }
            }
        }
        match node {
            Node::Dataset(data) => Ok(self.container.shape(&key, &data)?.first().copied()),
            _ => Ok(None),
        }
    }

    /// A column by name, the index's included.
    pub(super) fn column(&self, name: &str) -> Result<Option<Column>, H5adError> {
        if self.index.as_deref() == Some(name) || self.columns.iter().any(|have| have == name) {
            return self.read(name).map(Some);
        }
        Ok(None)
    }

    /// Whether the categories of a column have an order.
    pub(super) fn is_ordered(&self, name: &str) -> Result<bool, H5adError> {
        // Of the column itself, or of its categories in files of before 0.8.
        for key in [name.to_owned(), format!("__categories/{name}")] {
            let key = format!("{}/{key}", self.key);
            let node = self.container.node(&key)?;
            if self.container.attributes(&key, &node)?.flag("ordered") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read(&self, name: &str) -> Result<Column, H5adError> {
        let key = format!("{}/{name}", self.key);
        match &self.layout {
            Layout::Absent => Err(self.container.invalid(&key, "there is no such column")),
            Layout::Compound(compound) => self.read_member(compound, name, &key),
            Layout::Group => match self.container.node(&key)? {
                Node::Absent => Err(self.container.invalid(&key, "there is no such column")),
                Node::Group(_) => self.read_group(&key),
                Node::Dataset(_) => self.read_plain(name, &key),
            },
        }
    }

    /// A column that is one array; codes where `__categories` has categories for it.
    fn read_plain(&self, name: &str, key: &str) -> Result<Column, H5adError> {
        let values = read_array(&self.container, key)?;
        let categories_key = format!("{}/__categories/{name}", self.key);
        // The attribute `categories` is a reference that points at this very data set.
        match (self.container.node(&categories_key)?, &values) {
            (Node::Dataset(_), Column::Integers(_)) => {
                let categories = read_array(&self.container, &categories_key)?;
                categorical(&self.container, key, categories, values)
            }
            _ => Ok(values),
        }
    }

    /// A column that is a group: categories and codes, or values and a mask.
    fn read_group(&self, key: &str) -> Result<Column, H5adError> {
        let has = |member: &str| -> Result<bool, H5adError> {
            let node = self.container.node(&format!("{key}/{member}"))?;
            Ok(!matches!(node, Node::Absent))
        };
        if has("categories")? && has("codes")? {
            let categories = read_nested(&self.container, &format!("{key}/categories"))?;
            let codes = read_array(&self.container, &format!("{key}/codes"))?;
            return categorical(&self.container, key, categories, codes);
        }
        if has("values")? {
            return read_nested(&self.container, key);
        }
        Err(self.container.invalid(
            key,
            "expected a column, found a group of neither categories \
             and codes nor values and mask",
        ))
    }

    /// A member of a compound array, with the categories that the oldest files keep in `uns`.
    fn read_member(&self, compound: &Compound, name: &str, key: &str) -> Result<Column, H5adError> {
        let values = compound.column(&self.container, name)?;
        let categories_key = format!("uns/{name}_categories");
        match (self.container.node(&categories_key)?, &values) {
            (Node::Dataset(_), Column::Integers(_)) if self.key == "obs" || self.key == "var" => {
                let categories = read_array(&self.container, &categories_key)?;
                categorical(&self.container, key, categories, values)
            }
            _ => Ok(values),
        }
    }
}

/// Names that anndata has given the index.
fn usual_index(members: &[String]) -> Option<String> {
    ["_index", "index"]
        .into_iter()
        .find(|name| members.iter().any(|m| m == name))
        .map(str::to_owned)
}

/// Categories and codes, checked against each other.
fn categorical(
    container: &Container,
    key: &str,
    categories: Column,
    codes: Column,
) -> Result<Column, H5adError> {
    let categories = categories.into_names();
    let Column::Integers(values) = codes else {
        return Err(container.invalid(key, "expected integer codes of categories"));
    };
    let mut codes = Vec::with_capacity(values.len());
    for (row, code) in values.into_iter().enumerate() {
        let code = code.unwrap_or(-1);
        if code >= categories.len() as i64 {
            let what = format!("row {row} has category {code} of {}", categories.len());
            return Err(container.invalid(key, what));
        }
        codes.push(i32::try_from(code.max(-1)).unwrap_or(-1));
    }
    Ok(Column::Categories { categories, codes })
}

/// A plain array, or a group of values and a mask.
fn read_nested(container: &Container, key: &str) -> Result<Column, H5adError> {
    if matches!(container.node(key)?, Node::Dataset(_)) {
        return read_array(container, key);
    }
    let values = read_array(container, &format!("{key}/values"))?;
    let mask_key = format!("{key}/mask");
    if matches!(container.node(&mask_key)?, Node::Absent) {
        return Ok(values);
    }
    let mask = match read_array(container, &mask_key)? {
        Column::Booleans(mask) => mask.into_iter().map(|m| m == Some(true)).collect(),
        Column::Integers(mask) => mask
            .into_iter()
            .map(|m| m != Some(0))
            .collect::<Vec<bool>>(),
        _ => return Err(container.invalid(&mask_key, "expected booleans")),
    };
    if mask.len() != values.len() {
        let what = format!("{} entries for {} values", mask.len(), values.len());
        return Err(container.invalid(&mask_key, what));
    }
    Ok(masked(values, &mask))
}

fn masked(values: Column, mask: &[bool]) -> Column {
    fn blank<T>(values: Vec<Option<T>>, mask: &[bool]) -> Vec<Option<T>> {
        values
            .into_iter()
            .zip(mask)
            .map(|(v, m)| if *m { None } else { v })
            .collect()
    }
    match values {
        Column::Texts(values) => Column::Texts(blank(values, mask)),
        Column::Integers(values) => Column::Integers(blank(values, mask)),
        Column::Booleans(values) => Column::Booleans(blank(values, mask)),
        Column::Floats { values, single } => {
            let values = values.into_iter().zip(mask);
            let values = values.map(|(v, m)| if *m { f64::NAN } else { v }).collect();
            Column::Floats { values, single }
        }
        categories @ Column::Categories { .. } => categories,
    }
}

/// A one-dimensional array of numbers or texts.
fn read_array(container: &Container, key: &str) -> Result<Column, H5adError> {
    let dataset = container.dataset(key)?;
    let shape = container.shape(key, &dataset)?;
    if shape.len() > 1 {
        let what = format!("expected a column of one dimension, found shape {shape:?}");
        return Err(container.invalid(key, what));
    }
    let datatype = dataset.datatype().map_err(|e| container.failed(key, e))?;
    let Some(number) = number_of(&datatype) else {
        if type_name(&datatype) != "text" {
            let what = format!("expected numbers or text, found {}", type_name(&datatype));
            return Err(container.invalid(key, what));
        }
        let texts = container.strings(key, &dataset)?;
        return Ok(Column::Texts(texts.into_iter().map(Some).collect()));
    };
    container.check_storage(key, &dataset)?;
    let raw = dataset.read_raw().map_err(|e| container.failed(key, e))?;
    Ok(numbers(number, &raw))
}

/// Raw numbers as a column.
pub(super) fn numbers(number: Number, raw: &[u8]) -> Column {
    match number.kind {
        Kind::F16 | Kind::F32 | Kind::F64 => {
            let mut values = Vec::new();
            number.extend_f64(raw, &mut values);
            Column::Floats {
                values,
                single: number.kind != Kind::F64,
            }
        }
        Kind::Bool => Column::Booleans(raw.iter().map(|byte| Some(*byte != 0)).collect()),
        _ => {
            let mut values = Vec::new();
            number.extend_i64(raw, &mut values);
            Column::Integers(values.into_iter().map(Some).collect())
        }
    }
}
