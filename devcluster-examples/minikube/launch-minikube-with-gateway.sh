#!/bin/sh
# Starts minikube and its tunnel, runs a command while both are up, and restores the previous state.
set -eu

usage() {
    cat <<END
usage: ${0##*/} [-p PROFILE] [-k VERSION] [-t] [-d | -s] [command…]

Without a command: devcluster-remote up -c devcluster.yaml, the file beside this script. Its gateway stage installs Contour
where there is none, makes a Gateway, and waits for its address.

  -p PROFILE   minikube's profile, and the kubeconfig's context [default: determined]
  -k VERSION   Kubernetes of a minikube that is made [default: $version]
  -t           no \`minikube tunnel\`: it runs in another terminal
  -d           at the end delete the minikube, even if it was running before
  -s           in the end leave it running; else one that was started here is stopped
END
}

profile=determined version=v1.32.0 tunnel=yes after=stop
while getopts p:k:tdsh option; do
    case $option in
        p) profile=$OPTARG ;;
        k) version=$OPTARG ;;
        t) tunnel=no ;;
        d) after=delete ;;
        s) after=leave ;;
        h) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- devcluster-remote up -c "$(dirname "$0")/devcluster.yaml"

say() {
    echo "${0##*/}: $1" >&2
}

for tool in minikube "$1"; do
    command -v "$tool" >/dev/null || {
        say "the program \`$tool\` is not on \$PATH: install it"
        exit 2
    }
done

started=no tunnel_pid=
directory=$(mktemp -d)

finish() {
    status=$?
    trap '' INT TERM HUP
    if [ -n "$tunnel_pid" ]; then
        # A signal right after the start may get lost.
        (
            for _ in 1 2 3 4 5; do
                kill "$tunnel_pid" && sleep 1
            done
            kill -9 "$tunnel_pid"
        ) 2>/dev/null &
        ended=0
        wait "$tunnel_pid" 2>/dev/null || ended=$?
        kill $! 2>/dev/null || true
        case $ended in
            0 | 130 | 137 | 143) ;; # ended by the signal of this script
            *)
                say "minikube tunnel ended too early:"
                cat "$directory/tunnel.log" >&2
                ;;
        esac
    fi
    rm -rf "$directory"
    case $after:$started in
        delete:*) minikube delete --profile "$profile" >&2 ;;
        stop:yes) minikube stop --profile "$profile" >&2 ;;
    esac
    exit "$status"
}
trap finish EXIT
# The command gets the signal too, and ends first.
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# A running minikube is used unchanged, and a stopped one keeps its release.
if minikube status --profile "$profile" >/dev/null 2>&1; then
    say "minikube $profile is already running"
elif minikube profile list --light 2>/dev/null | grep -q "[| ]$profile[| ]"; then
    started=yes
    minikube start --profile "$profile" >&2
else
    started=yes
    minikube start --profile "$profile" --kubernetes-version "$version" >&2
fi

if [ "$tunnel" = yes ]; then
    # It changes this machine's routes, and cannot prompt for a password in the background.
    if ! sudo -n true 2>/dev/null; then
        if ! [ -t 0 ] || ! sudo -v; then
            say "minikube tunnel needs sudo, which cannot prompt without a terminal: run \`minikube tunnel --profile $profile\` in a terminal, and this with -t"
            exit 1
        fi
    fi
    minikube tunnel --profile "$profile" --cleanup >"$directory/tunnel.log" 2>&1 </dev/null &
    tunnel_pid=$!
fi

say "running: $*"
"$@"
