//! The kinds that are served.

use serde_json::{Value, json};

pub(super) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// The one group whose objects can be written: a session holds its Gateway by a Lease.
pub(super) const LEASE_GROUP: &str = "coordination.k8s.io";

pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespaced: bool,
}

pub(super) const KINDS: [Kind; 8] = [
    Kind {
        group: "",
        version: "v1",
        plural: "namespaces",
        kind: "Namespace",
        namespaced: false,
    },
    Kind {
        group: "",
        version: "v1",
        plural: "services",
        kind: "Service",
        namespaced: true,
    },
    Kind {
        group: "",
        version: "v1",
        plural: "pods",
        kind: "Pod",
        namespaced: true,
    },
    Kind {
        group: LEASE_GROUP,
        version: "v1",
        plural: "leases",
        kind: "Lease",
        namespaced: true,
    },
    Kind {
        group: "apiextensions.k8s.io",
        version: "v1",
        plural: "customresourcedefinitions",
        kind: "CustomResourceDefinition",
        namespaced: false,
    },
    Kind {
        group: GATEWAY_GROUP,
        version: "v1",
        plural: "gatewayclasses",
        kind: "GatewayClass",
        namespaced: false,
    },
    Kind {
        group: GATEWAY_GROUP,
        version: "v1",
        plural: "gateways",
        kind: "Gateway",
        namespaced: true,
    },
    Kind {
        group: GATEWAY_GROUP,
        version: "v1alpha2",
        plural: "tcproutes",
        kind: "TCPRoute",
        namespaced: true,
    },
];

impl Kind {
    pub(super) fn of(object: &Value) -> Option<&'static Kind> {
        KINDS.iter().find(|kind| {
            object["kind"] == kind.kind && object["apiVersion"] == kind.group_version()
        })
    }

    pub(super) fn group_version(&self) -> String {
        group_version(self.group, self.version)
    }

    /// As error messages write it: `gateways.gateway.networking.k8s.io`, `services`.
    pub(super) fn qualified(&self) -> String {
        qualified(self.plural, self.group)
    }

    pub(super) fn verbs(&self) -> &'static [&'static str] {
        match self.group {
            LEASE_GROUP => &["get", "list", "watch", "create", "update", "delete"],
            _ => &["get", "list", "watch"],
        }
    }

    pub(super) fn discovery(&self) -> Value {
        json!({
            "name": self.plural,
            "singularName": self.kind.to_lowercase(),
            "namespaced": self.namespaced,
            "kind": self.kind,
            "verbs": self.verbs(),
        })
    }
}

pub(super) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

pub(super) fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}.{group}")
    }
}
