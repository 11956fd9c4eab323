package main

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Only a Kubernetes API: etcd, kube-apiserver, and the garbage collector and the namespace controller of
// kube-controller-manager, in one process, on loopback. It prints one line of JSON when the API is ready, and ends when its
// stdin does. With KUBEBUILDER_ASSETS set, it runs the etcd and kube-apiserver of that directory as children instead.
func api(args []string) error {
	flags := flag.NewFlagSet("api", flag.ExitOnError)
	dir := flags.String("dir", "", "directory of all data; the data of an earlier run there is served again")
	port := flags.Int("port", 0, "port of the API; 0: a free one")
	tokens := flags.String("tokens", "", "a file of kube-apiserver's --token-auth-file, beside the admin's own certificate")
	_ = flags.Parse(args)
	return serve(*dir, *port, *tokens)
}
func serve(dir string, port int, tokens string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error, 2)
	assets := os.Getenv("KUBEBUILDER_ASSETS")

	etcd, err := startEtcd(ctx, dir, assets, failed)
	if err != nil {
		return err
	}
	if port == 0 {
		if port, err = freePort(); err != nil {
			return err
		}
	}
	pki, err := makePKI(dir, identity{
		file: "server", user: "kube-apiserver", addresses: []net.IP{net.IPv4(127, 0, 0, 1)}, names: []string{"localhost"},
	}, admin)
	if err != nil {
		return err
	}
	server := "https://127.0.0.1:" + strconv.Itoa(port)
	args, err := apiserverArgs(dir, etcd, pki,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+strconv.Itoa(port),
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=RBAC",
		// No controller creates the service accounts that this one waits for.
		"--disable-admission-plugins=ServiceAccount")
	if err != nil {
		return err
	}
	if tokens != "" {
		args = append(args, "--token-auth-file="+tokens)
	}
	startAPIServer(ctx, assets, args, failed)
	kubeconfig, err := pki.writeKubeconfig(filepath.Join(dir, "kubeconfig"), server, "admin")
	if err != nil {
		return err
	}
	if err := waitUntilAPI(kubeconfig, "/readyz", failed); err != nil {
		return err
	}
	if err := startControllers(ctx, kubeconfig); err != nil {
		return err
	}
	ready := map[string]any{"server": server, "kubeconfig": filepath.Join(dir, "kubeconfig"), "audit": filepath.Join(dir, "audit.log")}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}

	parentGone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(parentGone)
	}()
	select {
	case err := <-failed:
		return err
	case <-parentGone:
		return nil
	}
}

// Another process may take it first; then the start fails with an error.
func freePort() (int, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
