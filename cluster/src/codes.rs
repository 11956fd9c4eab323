//! The error codes of a cluster and the access to it.

protocol::codes! {
    API_ERROR = "cluster.api_error", Failed, "The Kubernetes API rejected a request, or sent an unexpected response.",
        "see the API's own message in the cause";
    API_UNAVAILABLE = "cluster.api_unavailable", Retryable, "The Kubernetes API is overloaded or failing: it answered 429, or 500 and above.",
        "try again; if the error stays, ask the cluster's admin";
    CERTIFICATE_REFUSED = "cluster.certificate_refused", Failed, "The kubeconfig does not trust the certificate of the Kubernetes API.",
        "get a new kubeconfig: the cluster may have been recreated";
    CONTEXT_UNKNOWN = "cluster.context_unknown", Usage, "The kubeconfig has no context of that name.",
        "set `k8s_context` to a name that `kubectl config get-contexts` shows";
    CONTEXT_UNSET = "cluster.context_unset", Usage, "The kubeconfig has no current context, and none is named.",
        "set `k8s_context` to a name that `kubectl config get-contexts` shows";
    CREDENTIALS_REFUSED = "cluster.credentials_refused", Failed, "The Kubernetes API rejects the credentials of the context.",
        "log in again, then check with `kubectl auth whoami`";
    CREDENTIALS_UNAVAILABLE = "cluster.credentials_unavailable", Failed, "The credential plugin or the kubeconfig provides no credentials.",
        "run `kubectl auth whoami` at a prompt; it says what is missing";
    FORBIDDEN = "cluster.forbidden", Failed, "The user of the context lacks a permission on the cluster.",
        "ask the cluster's admin for the verb and the resource that the message names";
    KUBECONFIG_MALFORMED = "cluster.kubeconfig_malformed", Usage, "The kubeconfig is not valid.",
        "correct the file until `kubectl config view` can read it";
    KUBECONFIG_MISSING = "cluster.kubeconfig_missing", Usage, "There is no kubeconfig.",
        "set `kubeconfig` or $KUBECONFIG to the file that kubectl uses for this cluster";
    KUBECONFIG_UNREADABLE = "cluster.kubeconfig_unreadable", Usage, "The kubeconfig exists but cannot be read.",
        "check the permissions of the file; the cause says why";
    NAMESPACE_MISSING = "cluster.namespace_missing", Failed, "The cluster does not have the namespace.",
        "create the namespace, or name one that exists";
    UNREACHABLE = "cluster.unreachable", Retryable, "The Kubernetes API does not answer.",
        "check with `kubectl version` that the cluster runs, and that a VPN is up if it needs one";
}
