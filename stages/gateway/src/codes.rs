//! The error codes of the gateway. Those of the way to the cluster are in the crate `cluster`.

protocol::codes! {
    ADDRESS_CHANGED = "gateway.address_changed", Failed, "The address of the Gateway is another one than the stage reported.",
        "restart the gateway stage, then the master";
    API_MISSING = "gateway.api_missing", Failed, "The cluster does not have the Gateway API.",
        "have an admin install the Gateway API's experimental channel and a controller that takes TCPRoutes, such as Contour's gateway provisioner";
    CAPACITY_LOW = "gateway.capacity_low", Failed, "The Gateway has room for fewer ports than `min_capacity`.",
        "widen `port_range`, free listeners, lower `min_capacity`, or set `raise_max_items`";
    CRD_CHANNEL = "gateway.crd_channel", Failed, "The cluster has the standard channel of the Gateway API, which lacks TCPRoute v1alpha2.",
        "which channel a cluster has is its admin's choice: ask for `kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.4.1/experimental-install.yaml`";
    DELETED = "gateway.deleted", Failed, "The Gateway was deleted while the stage used it.",
        "make it again, or start the gateway stage again to use another one";
    INFRASTRUCTURE_BUSY = "gateway.infrastructure_busy", Retryable, "Another session installs or removes the controller at the same time.",
        "start the gateway stage again in a minute";
    INFRASTRUCTURE_TIMEOUT = "gateway.infrastructure_timeout", Timeout, "Installing or removing a controller did not finish in time.",
        "the causes and the logs of its pods say what it waits for";
    MANIFEST_DIGEST = "gateway.manifest_digest", Failed, "The manifests do not have the SHA-256 of `provision_digest`.",
        "it was changed, by its author or on the way: look at it before you set `provision_digest` to what it has now";
    MANIFEST_MALFORMED = "gateway.manifest_malformed", Failed, "The manifests are not Kubernetes objects.",
        "`provision_manifests` takes what `kubectl apply -f` takes: objects with `apiVersion`, `kind` and `metadata.name`";
    MANIFEST_UNAVAILABLE = "gateway.manifest_unavailable", Failed, "The manifests cannot be read or downloaded.",
        "download them where their address can be reached, and name the file with `provision_manifests`; behind a proxy, set HTTPS_PROXY";
    MANIFEST_UNKNOWN_KIND = "gateway.manifest_unknown_kind", Failed, "The API does not know the kind of an object in the manifests.",
        "name the manifests of its CRD in `provision_manifests` too";
    NO_ADDRESS = "gateway.no_address", Timeout, "The Gateway did not get an address that Determined can use in time.",
        "`kubectl describe gateway` shows its address; a local cluster needs something like `minikube tunnel`";
    NO_CLASS = "gateway.no_class", Failed, "There is no GatewayClass of which a Gateway can be made.",
        "have an admin install a controller that takes TCPRoutes, such as Contour's gateway provisioner, with a GatewayClass";
    NONE = "gateway.none", Failed, "The cluster has no Gateway.",
        "`kubectl get gateways -A` lists those there are; one has to exist, of a class that takes TCPRoutes";
    NONE_USABLE = "gateway.none_usable", Failed, "No Gateway of the cluster can be used; the causes say why for each.",
        "fix one of them, or set `gateway`, `gateway_namespace` or `gateway_class`";
    NOT_FOUND = "gateway.not_found", Failed, "The Gateway that the config names does not exist.",
        "`kubectl get gateways -A` lists those there are; one has to exist, of a class that takes TCPRoutes";
    NOT_PROGRAMMED = "gateway.not_programmed", Timeout, "The controller did not bring the Gateway up in time.",
        "is its controller running? `kubectl describe gateway` shows what it reports";
    SESSION_LOST = "gateway.session_lost", Failed, "Another session has the Gateway.",
        "start the gateway stage again, then the master; a longer `lease_duration` survives a longer sleep";
    TCPROUTE_MISSING = "gateway.tcproute_missing", Failed, "The cluster does not serve TCPRoute v1alpha2, which Determined uses.",
        "have an admin install the experimental channel of the Gateway API: the standard one does not serve that version";
}
