//! Checks files of message ids.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use super::super::layout::Layout;
use super::super::recovery::Recovered;
use super::{CACHE_BYTES, FindingKind, Verify};
use crate::cache::Cache;
use crate::dedup::{IdFile, IdManifest};
use crate::error::ReadError;
use crate::ids::IdFileId;

impl Verify {
    pub(super) fn id_files(&mut self, recovered: &Recovered) {
        self.id_orphans(&recovered.id_files.keys().copied().collect());
        for manifest in recovered.id_files.values() {
            self.id_file(manifest);
        }
    }

    fn id_file(&mut self, manifest: &IdManifest) {
        let path = self.layout.id_file(manifest.id);
        let cache = Arc::new(Cache::new(CACHE_BYTES, 2));
        let file = IdFile::new(&self.env, &path, self.uuid, *manifest, cache, None);
        let report = match file.verify(&mut |_| {}) {
            Ok(report) => report,
            Err(error) => {
                let what = match &error {
                    ReadError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                        format!("the file is missing: {} message ids", manifest.entries)
                    }
                    error => error.to_string(),
                };
                self.report.find(FindingKind::Lost, path, None, what);
                return;
            }
        };
        self.checked(report.bytes);
        for damage in report.lost {
            let what = format!("message ids: {}", damage.reason);
            let offset = Some(damage.offset);
            self.report.find(FindingKind::Lost, &path, offset, what);
        }
        for (offset, what) in report.harmless {
            let offset = Some(offset);
            self.report.find(FindingKind::Harmless, &path, offset, what);
        }
    }

    fn id_orphans(&mut self, named: &BTreeSet<IdFileId>) {
        let dir = self.layout.ids_dir();
        for entry in self.env.io.list(&dir).into_iter().flatten() {
            let id = Layout::parse_id_file(&entry.name);
            if id.is_none_or(|id| !named.contains(&id)) {
                let file = dir.join(&entry.name);
                let what = "no metadata names it";
                self.report.find(FindingKind::Orphan, file, None, what);
            }
        }
    }
}
