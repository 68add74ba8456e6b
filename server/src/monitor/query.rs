//! Arguments of a request, read as the reference does, with its texts for bad ones.

use std::collections::HashMap;

/// The arguments of a request by name.
pub(super) struct Query(pub(super) HashMap<String, String>);

/// An answer with status 400.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadRequest(pub(super) String);

impl Query {
    /// An argument that is given and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    pub(super) fn bool(&self, name: &str) -> Result<bool, BadRequest> {
        match self.text(name) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(text) => Err(BadRequest(format!(
                "Error decoding boolean for '{name}': strconv.ParseBool: parsing {text:?}: \
                 invalid syntax"
            ))),
        }
    }

    fn int(&self, name: &str) -> Result<i64, BadRequest> {
        self.text(name).map_or(Ok(0), |text| {
            text.parse().map_err(|_| {
                BadRequest(format!(
                    "Error decoding int for '{name}': strconv.Atoi: parsing {text:?}: invalid syntax"
                ))
            })
        })
    }

    /// A number that is 0 when absent or negative.
    pub(super) fn count(&self, name: &str) -> Result<u64, BadRequest> {
        Ok(u64::try_from(self.int(name)?).unwrap_or(0))
    }

    /// `offset` and `limit` of a list.
    pub(super) fn page(&self, limit_default: usize) -> Result<Page, BadRequest> {
        let offset = usize::try_from(self.count("offset")?).unwrap_or(usize::MAX);
        let limit = usize::try_from(self.count("limit")?).unwrap_or(usize::MAX);
        Ok(Page {
            offset,
            limit: if limit == 0 { limit_default } else { limit },
        })
    }
}

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) offset: usize,
    pub(super) limit: usize,
}

impl Page {
    pub(super) fn cut<T>(self, items: Vec<T>) -> Vec<T> {
        items
            .into_iter()
            .skip(self.offset)
            .take(self.limit)
            .collect()
    }
}

/// Entries of a list when the request does not say how many.
pub(super) const LIMIT_DEFAULT: usize = 1024;
