package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// Requests of the apiserver to itself do not count.
const auditPolicy = `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [
  {"level": "None", "users": ["system:apiserver"]},
  {"level": "None", "nonResourceURLs": ["/healthz*", "/readyz*", "/livez*"]},
  {"level": "Metadata"}]}`

// The arguments of both beds.
func apiserverArgs(dir, etcd string, pki pki, extra ...string) ([]string, error) {
	policy := filepath.Join(dir, "audit-policy.json")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	server := pki.pair("server")
	return append([]string{
		"--etcd-servers=" + etcd,
		"--cert-dir=" + filepath.Join(dir, "certs"),
		"--tls-cert-file=" + server.cert, "--tls-private-key-file=" + server.key,
		"--client-ca-file=" + pki.pair("ca").cert,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + server.key, "--service-account-signing-key-file=" + server.key,
		"--audit-policy-file=" + policy, "--audit-log-path=" + filepath.Join(dir, "audit.log"),
		"--watch-cache-sizes=gateways.gateway.networking.k8s.io#1000",
	}, extra...), nil
}

func startAPIServer(ctx context.Context, assets string, args []string, failed chan<- error) {
	if assets != "" {
		startChild(ctx, filepath.Join(assets, "kube-apiserver"), args, failed)
		return
	}
	command := apiserver.NewAPIServerCommand()
	command.SetArgs(args)
	command.SetOut(os.Stderr)
	command.SetErr(os.Stderr)
	go func() {
		failed <- fmt.Errorf("kube-apiserver ended: %w", command.Execute())
	}()
}

// The child ends with this process: by its stdin and its parent-death signal.
func startChild(ctx context.Context, program string, args []string, failed chan<- error) {
	command := exec.CommandContext(ctx, program, args...)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	command.SysProcAttr = diesWithUs()
	go func() {
		// The signal follows the thread that started it.
		lockThread()
		failed <- fmt.Errorf("%s ended: %w", program, command.Run())
	}()
}

// Waits until the API answers this path, such as /readyz.
func waitUntilAPI(config *rest.Config, path string, failed <-chan error) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	deadline := time.After(2 * time.Minute)
	for {
		answer := client.RESTClient().Get().AbsPath(path).Do(context.Background())
		if answer.Error() == nil {
			return nil
		}
		select {
		case err := <-failed:
			return err
		case <-deadline:
			return fmt.Errorf("the API fails %s after 2 minutes: %w", path, answer.Error())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
