//! Changes of the namespace: MKCOL, DELETE, COPY, MOVE.

use std::sync::Arc;

use http::{Response, StatusCode, header};

use super::body::{Body, Incoming};
use super::guard::{self, Intent};
use super::locks::LockTable;
use super::status::Refusal;
use super::{Call, Depth, Reply, Touched, allow, bare, stat, uri};
use crate::volume::{Kind, Meta, Replaced, ResourcePath, Volume, VolumeError};

impl Call<'_> {
    fn parts_of_change(&self, path: &ResourcePath) -> (Arc<Volume>, Arc<LockTable>, ResourcePath) {
        let dav = self.dav;
        (
            Arc::clone(&dav.volume),
            Arc::clone(&dav.locks),
            path.clone(),
        )
    }

    /// Carries out a change that locks have to hear of, whether or not its asker goes away meanwhile.
    async fn to_its_end<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, VolumeError>> + Send + 'static,
    ) -> Result<T, VolumeError> {
        if self.dav.locks.knows_none() {
            return change.await;
        }
        tokio::spawn(change).await.unwrap_or_else(|e| {
            Err(VolumeError::Io {
                op: "change",
                path: self.target.path.clone(),
                source: std::io::Error::other(e),
            })
        })
    }

    pub(super) async fn mkcol(&self, body: &mut Incoming) -> Reply {
        let path = &self.target.path;
        let guard = Arc::new(self.guard(Intent::Change).await?);
        let exists = |meta: &Meta| {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "exists already")
                .with_header(header::ALLOW, allow(Some(meta)))
        };
        if body.may_have_bytes() {
            // A file of that name is in the way, whether named with a slash or not.
            if let Ok(meta) = self.dav.volume.stat(path).await {
                return Err(exists(&meta));
            }
            self.no_body(body).await?;
        }
        let target = path.clone();
        let rule = move |g: &guard::Guard, meta: Option<&Meta>| {
            if let Some(meta) = meta {
                return Err(exists(meta));
            }
            g.conditions(meta)?;
            g.open(&guard::key(&target), false)?;
            g.open_parent(&target)
        };
        let (check, reason) = guard::check(&guard, rule);
        self.dav
            .volume
            .mkcol(path, check)
            .await
            .map_err(|e| guard::refusal(e, &reason))?;
        Ok(bare(StatusCode::CREATED))
    }

    pub(super) async fn delete(&self, _body: &mut Incoming) -> Reply {
        let path = &self.target.path;
        let guard = Arc::new(self.guard(Intent::Change).await?);
        let meta = self.stat().await?;
        let Some(meta) = meta else {
            guard.conditions(None)?;
            return Err(Refusal::not_found());
        };
        if path.is_root() || *path == self.root {
            return Err(Refusal::forbidden("the root cannot be deleted"));
        }
        if meta.kind == Kind::Collection && self.depth()?.is_some_and(|d| d != Depth::Infinity) {
            return Err(Refusal::bad_request(
                "a collection is deleted with Depth: infinity",
            ));
        }
        let target = path.clone();
        let rule = move |g: &guard::Guard, meta: Option<&_>| {
            g.conditions(meta)?;
            g.open(&guard::key(&target), true)?;
            g.open_parent(&target)
        };
        rule(&guard, Some(&meta))?;
        let (check, reason) = guard::check(&guard, rule);
        let (volume, locks, gone) = self.parts_of_change(path);
        let remove = async move {
            volume.remove(&gone, check).await?;
            locks.removed(&guard::key(&gone));
            Ok(())
        };
        self.to_its_end(remove)
            .await
            .map_err(|e| guard::refusal(e, &reason))?;
        let mut response = bare(StatusCode::NO_CONTENT);
        response.extensions_mut().insert(Touched {
            file: Some(meta.file_id),
            len: meta.len,
            ..Touched::default()
        });
        Ok(response)
    }

    pub(super) async fn copy_or_move(&self, _body: &mut Incoming, moving: bool) -> Reply {
        let from = &self.target.path;
        let to = uri::destination(&self.parts.headers, &self.ours(), &self.root)?;
        let overwrite = match self.header("overwrite") {
            None | Some("T" | "t") => true,
            Some("F" | "f") => false,
            Some(_) => return Err(Refusal::bad_request("Overwrite must be T or F")),
        };
        let guard = Arc::new(self.guard(Intent::Change).await?);
        let Some(source) = self.stat().await? else {
            guard.conditions(None)?;
            return Err(Refusal::not_found());
        };
        let collection = source.kind == Kind::Collection;
        let depth = self.depth()?;
        let deep = match (depth, collection) {
            (Some(Depth::One), true) => {
                return Err(Refusal::bad_request("Depth must be 0 or infinity"));
            }
            (Some(Depth::Zero), true) if moving => {
                return Err(Refusal::bad_request(
                    "a collection is moved with Depth: infinity",
                ));
            }
            (Some(Depth::Zero), _) => false,
            _ => true,
        };
        if to.path == *from {
            return Err(Refusal::forbidden("source and destination are the same"));
        }
        if to.path.is_within(from) && collection && (moving || deep) {
            return Err(Refusal::forbidden("the destination lies within the source"));
        }
        if from.is_within(&to.path) {
            return Err(Refusal::forbidden("the source lies within the destination"));
        }
        if moving && (from.is_root() || *from == self.root) {
            return Err(Refusal::forbidden("the root cannot be moved"));
        }
        guard.conditions(Some(&source))?;
        let (from_key, to_key) = (guard::key(from), guard::key(&to.path));
        let (source_path, target_path) = (from.clone(), to.path.clone());
        let (from_locked, to_locked) = (from_key.clone(), to_key.clone());
        // With conditions only this version is copied.
        let version = (guard.has_conditions() && !collection).then_some(source.file_id);
        let (volume, first_seen) = (Arc::clone(&self.dav.volume), source.clone());
        let rule = move |g: &guard::Guard, replaced: Option<&crate::volume::Meta>| {
            if g.has_conditions() {
                // What is moved is what is there now, and nothing else can change it.
                let now = moving.then(|| volume.look(&source_path));
                let source = match &now {
                    Some(now) => now.as_ref(),
                    None => Some(&first_seen),
                };
                let there = replaced.map(|meta| &*meta.etag);
                g.conditions_beside(source, Some((&to_locked, there)))?;
            }
            if moving {
                g.open(&from_locked, true)?;
                g.open_parent(&source_path)?;
            }
            g.open(&to_locked, replaced.is_some())?;
            if replaced.is_none() {
                g.open_parent(&target_path)?;
            }
            if replaced.is_some() && !overwrite {
                return Err(Refusal::precondition("the destination exists"));
            }
            Ok(())
        };
        // A move is over as soon as it is allowed; a copy is not begun in vain.
        if !moving {
            let there = uri::Target {
                path: to.path.clone(),
                slash: false,
            };
            let there = stat(&self.dav.volume, &there).await?;
            rule(&guard, there.as_ref())?;
        }
        let (check, reason) = guard::check(&guard, rule);
        let (volume, locks, source_path) = self.parts_of_change(from);
        let target_path = to.path.clone();
        let etag = (!collection).then_some(source.etag);
        let done = if moving {
            let rename = async move {
                let renamed = volume.rename(&source_path, &target_path, overwrite, check);
                let replaced = renamed.await?;
                locks.renamed(&from_key, &to_key, etag.as_deref());
                Ok(replaced)
            };
            self.to_its_end(rename).await
        } else {
            let copied = volume
                .copy(from, version, &to.path, overwrite, deep, check)
                .await;
            if let Ok(Replaced(true)) = copied {
                locks.replaced(&to_key);
            }
            copied
        };
        let Replaced(replaced) = done.map_err(|e| match e {
            VolumeError::Exists { .. } => Refusal::precondition("the destination exists"),
            e => guard::refusal(e, &reason),
        })?;
        let mut response: Response<Body> = bare(if replaced {
            StatusCode::NO_CONTENT
        } else {
            StatusCode::CREATED
        });
        let touched = Touched {
            file: Some(source.file_id),
            len: source.len,
            to: Some(to.path),
            ..Touched::default()
        };
        response.extensions_mut().insert(touched);
        Ok(response)
    }
}
