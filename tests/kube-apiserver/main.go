// A Kubernetes API for the tests: etcd, kube-apiserver, and of kube-controller-manager the garbage collector and the
// namespace controller, in one process, on loopback, with certificates of its own.
//
// It prints one line of JSON once the API is ready, and ends when its stdin does: a test that dies takes it along.
// With KUBEBUILDER_ASSETS set, the etcd and kube-apiserver of that directory run as children in place of those
// compiled in here.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

func main() {
	dir := flag.String("dir", "", "where to keep everything; what an earlier run left there is served again")
	port := flag.Int("port", 0, "port of the API; 0: a free one")
	tokens := flag.String("tokens", "", "a file of kube-apiserver's --token-auth-file, beside the admin's own certificate")
	flag.Parse()
	if err := serve(*dir, *port, *tokens); err != nil {
		fmt.Fprintln(os.Stdout, err)
		os.Exit(1)
	}
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
	pki, err := makePKI(dir)
	if err != nil {
		return err
	}
	server := "https://127.0.0.1:" + strconv.Itoa(port)
	args, err := apiserverArgs(dir, port, etcd, tokens, pki)
	if err != nil {
		return err
	}
	startAPIServer(ctx, assets, args, failed)
	kubeconfig, err := pki.writeKubeconfig(filepath.Join(dir, "kubeconfig"), server)
	if err != nil {
		return err
	}
	if err := waitUntilReady(kubeconfig, failed); err != nil {
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

// Somebody else may take it before we do; then the start fails and says so.
func freePort() (int, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
