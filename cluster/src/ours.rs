//! Every deletion on a cluster. An object is deleted as it was read, by uid and version, and only if it is ours: it carries
//! our mark, and a link by uid to a session of ours. Its name, and what others may write on it, prove nothing.

use std::fmt::Debug;

use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;

use crate::errors::status;

/// How often an object may change between a read and the deletion.
const ATTEMPTS: u32 = 5;

/// What an object of ours carries.
#[derive(Debug, Clone, Copy)]
pub struct Ours<'a> {
    /// A label, and our mark as its value.
    pub mark: (&'static str, &'a str),
    /// The uid of the Lease of a session of ours, which the object names as its owner. `None`: the object belongs to no
    /// session, and who may write its mark may delete it.
    pub session: Option<&'a str>,
}

impl Ours<'_> {
    pub fn includes(&self, object: &impl ResourceExt) -> bool {
        let (label, mark) = self.mark;
        let is_owner = |uid: &str| object.owner_references().iter().any(|it| it.uid == uid);
        object.labels().get(label).is_some_and(|it| it == mark) && self.session.is_none_or(is_owner)
    }
}

/// The result of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    Deleted,
    /// It did not exist any more.
    Gone,
    /// It has changed since it was read.
    Changed,
}

/// Deletes this version of an object, and then what it owns.
pub async fn delete_as_read<K>(api: &Api<K>, read: &impl ResourceExt) -> kube::Result<Deletion>
where
    K: Clone + DeserializeOwned + Debug,
{
    let params = DeleteParams::background().preconditions(Preconditions {
        uid: read.uid(),
        resource_version: read.resource_version(),
    });
    match api.delete(&read.name_any(), &params).await {
        Ok(_) => Ok(Deletion::Deleted),
        Err(error) if status(&error) == 404 => Ok(Deletion::Gone),
        Err(error) if status(&error) == 409 => Ok(Deletion::Changed),
        Err(error) => Err(error),
    }
}

/// Deletes the object of this name if it is ours. Returns whether there was one.
pub async fn delete<K>(api: &Api<K>, name: &str, ours: Ours<'_>) -> kube::Result<bool>
where
    K: Clone + DeserializeOwned + Debug + kube::Resource,
{
    for _ in 0..ATTEMPTS {
        let Some(read) = api.get_opt(name).await?.filter(|it| ours.includes(it)) else {
            return Ok(false);
        };
        match delete_as_read(api, &read).await? {
            Deletion::Deleted => return Ok(true),
            Deletion::Gone => return Ok(false),
            Deletion::Changed => {}
        }
    }
    Err(restless(name))
}

/// Takes the session from the owners of the object of this name, if it is one: the object stays when the Lease is deleted.
/// An orphaning deletion of the Lease would depend on the garbage collector, which may not know a new object yet.
pub async fn disown(api: &Api<DynamicObject>, name: &str, ours: Ours<'_>) -> kube::Result<()> {
    for _ in 0..ATTEMPTS {
        let Some(mut object) = api.get_opt(name).await?.filter(|it| ours.includes(it)) else {
            return Ok(());
        };
        let owners = object.owner_references_mut();
        owners.retain(|it| Some(it.uid.as_str()) != ours.session);
        match api.replace(name, &PostParams::default(), &object).await {
            Err(error) if status(&error) == 409 => {}
            done => return done.map(drop),
        }
    }
    Err(restless(name))
}

fn restless(name: &str) -> kube::Error {
    kube::Error::Service(format!("{name} changes again and again").into())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_mark_and_the_owner_by_uid_must_both_be_there() {
        let object = |label: &str, name: &str, uid: &str| -> ConfigMap {
            serde_json::from_value(json!({"metadata": {
                "labels": {"mark": label},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Lease", "name": name, "uid": uid}],
            }}))
            .unwrap()
        };
        let ours = Ours {
            mark: ("mark", "m"),
            session: Some("u1"),
        };
        assert!(ours.includes(&object("m", "lease", "u1")));
        assert!(!ours.includes(&object("x", "lease", "u1")));
        assert!(!ours.includes(&object("m", "u1", "u2")));
        assert!(!ours.includes(&ConfigMap::default()));
    }
}
