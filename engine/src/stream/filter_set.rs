//! Several filters at once, none of which lets a message count twice.

use crate::subject::Filter;

/// Up to this many filters are compared with each other, to drop those that add nothing.
const COMPARED_MAX: usize = 64;

/// Filters to ask an index for, one after the other.
pub(super) struct FilterSet<'f> {
    filters: Vec<&'f Filter>,
    literals_only: bool,
}

impl<'f> FilterSet<'f> {
    /// True if every message matches; so it does when there is no filter.
    pub fn wants_all(filters: &[Filter]) -> bool {
        filters.is_empty() || filters.iter().any(Filter::is_all)
    }

    pub fn new(filters: &'f [Filter]) -> FilterSet<'f> {
        let mut kept: Vec<&Filter> = Vec::with_capacity(filters.len());
        for filter in filters {
            if filters.len() > COMPARED_MAX {
                kept.push(filter);
            } else if !kept.iter().any(|other| filter.is_subset_of(other)) {
                kept.retain(|other| !other.is_subset_of(filter));
                kept.push(filter);
            }
        }
        FilterSet {
            literals_only: kept.iter().all(|filter| filter.literal().is_some()),
            filters: kept,
        }
    }

    /// The filters, each with whether a subject that it matches counts for it: it does unless an
    /// earlier filter matches it too.
    pub fn iter(&self) -> impl Iterator<Item = (&'f Filter, impl Fn(&[u8]) -> bool + '_)> + '_ {
        self.filters.iter().enumerate().map(|(n, filter)| {
            let earlier = &self.filters[..n];
            let counts = move |subject: &[u8]| !earlier.iter().any(|f| f.matches(subject));
            (*filter, counts)
        })
    }

    /// The subjects that match, if no filter has a wildcard.
    pub fn literals(&self) -> Option<impl Iterator<Item = &'f [u8]> + '_> {
        let literals = self.iter().filter_map(|(filter, counts)| {
            let subject = filter.literal()?;
            counts(subject).then_some(subject)
        });
        self.literals_only.then_some(literals)
    }

    pub fn matches(&self, subject: &[u8]) -> bool {
        self.filters.iter().any(|filter| filter.matches(subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(texts: &[&str]) -> Vec<Filter> {
        let filter = |text: &&str| Filter::new(text.as_bytes()).expect("a filter");
        texts.iter().map(filter).collect()
    }

    /// How often a subject counts.
    fn times(texts: &[&str], subject: &str) -> usize {
        let filters = filters(texts);
        FilterSet::new(&filters)
            .iter()
            .filter(|(filter, counts)| {
                filter.matches(subject.as_bytes()) && counts(subject.as_bytes())
            })
            .count()
    }

    #[test]
    fn a_subject_counts_once_however_many_filters_match() {
        for texts in [
            &["a.*", "*.b"][..],
            &["a.b", "a.*", "a.>"],
            &["a.>", "a.b", "a.b"],
            &["a.b", "a.b"],
        ] {
            assert_eq!(times(texts, "a.b"), 1, "{texts:?}");
            assert_eq!(times(texts, "b.c"), 0, "{texts:?}");
        }
        let many: Vec<String> = (0..200).map(|n| format!("s.{}", n % 70)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!((times(&many, "s.69"), times(&many, "s.70")), (1, 0));
    }

    #[test]
    fn what_another_filter_covers_is_not_asked_for() {
        let covered = filters(&["a.b", "a.>", "c", "a.*.c"]);
        let set = FilterSet::new(&covered);
        let texts: Vec<_> = set.iter().map(|(filter, _)| filter.text()).collect();
        assert_eq!(texts, [&b"a.>"[..], b"c"]);
        assert!(set.literals().is_none());
        let plain = filters(&["a", "b", "a"]);
        let set = FilterSet::new(&plain);
        let subjects: Vec<_> = set.literals().expect("no wildcard").collect();
        assert_eq!(subjects, [b"a", b"b"]);
    }
}
