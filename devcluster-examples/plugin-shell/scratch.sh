#!/bin/sh
# A plugin in POSIX shell: creates a scratch directory, reports its path, and removes it.
#
#     stages:
#       - plugin: {name: scratch, uses: ./scratch.sh, with: {directory: /var/tmp}}
LC_ALL=C
export LC_ALL
verb=$1 name=scratch run_dir=${TMPDIR:-/tmp}
[ $# -eq 0 ] || shift
while [ $# -gt 1 ]; do
    case $1 in
        --name) name=$2 ;;
        --run-dir) run_dir=$2 ;;
    esac
    shift 2
done
note=$run_dir/$name.scratch # by this note, cleanup finds what a killed run left

# One printf, so one write per message.
say() {
    printf '{"dcs":1,"type":"%s","stage":"%s"%s}\n' "$1" "$name" "$2"
}

fail() { # exit code, error code, message
    echo "$name: $3" >&2
    take_away
    say error ',"error":{"code":"'"$2"'","message":"'"$3"'","retryable":false,"fatal":true}'
    say result ',"ok":false,"exit":'"$1"
    exit "$1"
}

stop() {
    trap '' TERM INT HUP
    say stopping ',"reason":"'"$1"'"'
    take_away
    say result ',"ok":true,"exit":0'
    exit 0
}

take_away() {
    [ -f "$note" ] || return 0
    while read -r path; do
        case $path in */devcluster-scratch.*) rm -rf "$path" || return ;; esac
    done <"$note" && rm -f "$note"
}

field() { # the text of a field, in JSON without nesting; empty if it is missing
    printf '%s\n' "$line" | sed -n 's/.*"'"$1"'" *: *\('"$2"'\).*/\1/p'
}

start() {
    config=$(field config '{[^{}]*}')
    case $line in
        *'"config"'*) ;;
        *) config='{}' ;;
    esac
    case $config in
        '{}') directory=${TMPDIR:-/tmp} ;;
        *) directory=$(printf '%s\n' "$config" | sed -n 's/^{ *"directory" *: *"\([^"\\]*\)" *}$/\1/p') ;;
    esac
    [ -n "$directory" ] || fail 2 scratch.config "expected only 'directory', a text without quotes"
    [ -d "$directory" ] && [ -w "$directory" ] || fail 1 scratch.no_directory "$directory is not a writable directory"
    path=$directory/devcluster-scratch.$run
    # Recorded before it is created: a kill in between leaves nothing unknown.
    (umask 077 && echo "$path" >"$note" && mkdir "$path" && echo "$name" >"$path/owner") ||
        fail 1 scratch.failed "cannot make a directory in $directory"
    say outputs ',"kind":"scratch","run":"'"$run"'","gen":1,"outputs":{"path":"'"$path"'"}'
    say ready ',"run":"'"$run"'","gen":1'
}

run() {
    run=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n') path=
    trap 'stop sigterm' TERM
    trap 'stop sigint' INT
    take_away
    say hello ',"kind":"scratch","version":"1","run":"'"$run"'","pid":'$$
    # `read` fails on an unfinished line before the end.
    while IFS= read -r line; do
        [ ${#line} -lt 65536 ] || continue
        case $(field dcs '[^,}]*') in
            1) ;;
            '') continue ;;
            *) fail 3 scratch.version "the host speaks another version than 1" ;;
        esac
        case $(field type '"[a-z_]*"')$(field config '[^{]') in
            '"start"') [ -n "$path" ] || start ;;
            '"shutdown"') stop shutdown ;;
        esac
    done
    stop shutdown
}

case $verb in
    describe) cat <<'END' ;;
{"dcs":1,"kind":"scratch","version":"1","about":"A scratch directory","verbs":["describe","run","cleanup"],
 "config":{"type":"object","additionalProperties":false,"properties":{"directory":{"type":"string","description":"Where to make it; default: the temporary directory"}}},
 "outputs":{"type":"object","required":["path"],"properties":{"path":{"type":"string"}}}}
END
    run) run ;;
    cleanup) take_away ;;
    *) echo "usage: scratch.sh describe|run|cleanup" >&2 && exit 2 ;;
esac
