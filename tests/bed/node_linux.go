package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"text/template"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

//go:embed config
var configs embed.FS

const (
	nodeName      = "node1"
	etcdURL       = "http://127.0.0.1:2379"
	containerdRun = "/run/containerd/containerd.sock"
	// How long `up` may take until the cluster runs pods, on a busy machine.
	readyWithin = 5 * time.Minute
)

// The cluster, inside its namespaces.
type cluster struct {
	spec      *spec
	at        addresses
	pki       pki
	config    *rest.Config
	client    kubernetes.Interface
	processes *processes
	balancer  *balancer
	policies  *policies
}

func node([]string) error {
	spec, err := readSpec()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	bed := &cluster{spec: spec, at: addressesOf(spec), processes: newProcesses()}
	commands := readCommands()
	ready := make(chan error, 1)
	go func() { ready <- bed.start(ctx) }()
	select {
	case err = <-ready:
	case err = <-bed.processes.failed:
	case <-commands.ended:
		return nil
	}
	if err != nil {
		return err
	}
	if spec.Text {
		fmt.Print(bed.help())
	} else if err := bed.say(bed.description()); err != nil {
		return err
	}
	return bed.obey(commands)
}

func (c *cluster) say(what any) error { return json.NewEncoder(os.Stdout).Encode(what) }

// What `up` prints when it is ready.
func (c *cluster) description() map[string]any {
	state, enter := c.spec.State, map[string]string{}
	for _, host := range hosts {
		enter[host.name] = c.spec.entrance(host.name)
	}
	return map[string]any{
		"number":     c.spec.Number,
		"cgroup":     c.spec.Cgroup,
		"kubeconfig": filepath.Join(state, "kubeconfig"),
		"server":     c.server(),
		"namespaces": c.spec.Namespaces,
		"enter":      enter,
		"addresses":  map[string]string{"laptop": c.at.Laptop, "cloud": c.at.Node, "ssh": c.at.SSH},
		"ssh_config": filepath.Join(state, "sshd", "config"),
		"audit":      filepath.Join(state, "audit.log"),
		"logs":       filepath.Join(state, "logs"),
	}
}

func (c *cluster) help() string {
	said := c.description()
	text := fmt.Sprintf("The cluster runs. Its API is %s, which the hosts of the bed reach:\n\n", c.server())
	for i, address := range []string{c.at.Laptop, c.at.Node, c.at.SSH} {
		text += fmt.Sprintf("  %-7s %-11s %s COMMAND...\n", hosts[i].name, address, c.spec.entrance(hosts[i].name))
	}
	return text + fmt.Sprintf(`
kubeconfig  %s
ssh config  %s (for %s)
logs        %s

Commands here: %s.
End it with Ctrl-D or Ctrl-C.
`, said["kubeconfig"], said["ssh_config"], c.at.SSH, said["logs"], commandNames)
}

func (c *cluster) server() string { return "https://" + c.at.Node + ":6443" }

func (c *cluster) start(ctx context.Context) error {
	steps := []func(context.Context) error{
		func(context.Context) error { return mountAll(c.spec) },
		func(context.Context) error { return layCables(c.at) },
		func(context.Context) error { return makeCgroups(c.at.Cgroup) },
		c.writeFiles, c.startBelow, c.startAPI, c.startAbove, c.waitUntilReady,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) writeFiles(context.Context) error {
	for file, from := range map[string]string{
		"containerd.toml": "containerd.toml", "kubelet.yaml": "kubelet.yaml", "kube-proxy.yaml": "kube-proxy.yaml",
		"Corefile": "Corefile", "cni/bed.conflist": "cni.conflist", "sshd/sshd_config": "sshd_config",
		"node.nft": "node.nft", "laptop.nft": "laptop.nft",
	} {
		text, err := template.ParseFS(configs, "config/"+from)
		if err != nil {
			return err
		}
		var filled bytes.Buffer
		if err := text.Execute(&filled, c.at); err != nil {
			return err
		}
		if err := os.WriteFile(at(file), filled.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(at("resolv.conf"), nil, 0o644); err != nil {
		return err
	}
	for file, space := range map[string]int{"node.nft": cloudSpace, "laptop.nft": laptopSpace} {
		if err := runIn(space, "", "nft", "-f", at(file)); err != nil {
			return err
		}
	}
	return c.makeCertificates()
}

func (c *cluster) makeCertificates() error {
	local := net.IPv4(127, 0, 0, 1)
	users := map[string]string{
		"kubelet-client": "system:node:" + nodeName, "kube-controller-manager": "system:kube-controller-manager",
		"kube-scheduler": "system:kube-scheduler", "kube-proxy": "system:kube-proxy",
	}
	identities := []identity{
		{file: "server", user: "kube-apiserver", addresses: []net.IP{net.ParseIP(c.at.Node), net.ParseIP(c.at.API), local},
			names: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"}},
		{file: "kubelet", user: "system:node:" + nodeName, addresses: []net.IP{net.ParseIP(c.at.Node)}, names: []string{nodeName}},
		{file: "apiserver-client", user: "kube-apiserver", groups: []string{"system:masters"}},
		{file: "coredns", user: "coredns", groups: []string{"system:masters"}},
	}
	for file, user := range users {
		who := identity{file: file, user: user}
		if file == "kubelet-client" {
			who.groups = []string{"system:nodes"}
		}
		identities = append(identities, who)
	}
	var err error
	if c.pki, err = makePKI(inside, append(identities, admin)...); err != nil {
		return err
	}
	for _, user := range []string{"kubelet-client", "kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns"} {
		if _, err := c.pki.writeKubeconfig(at(user+".kubeconfig"), c.server(), user); err != nil {
			return err
		}
	}
	c.config, err = c.pki.writeKubeconfig(at("kubeconfig"), c.server(), "admin")
	return err
}

// Processes that need no API: etcd, the container runtime with its images, and the ssh server.
func (c *cluster) startBelow(ctx context.Context) error {
	for _, program := range []program{
		{"etcd", cloudSpace, []string{"--data-dir=" + at("etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=" + etcdURL, "--advertise-client-urls=" + etcdURL,
			"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=default=http://127.0.0.1:2380"}},
		{"containerd", cloudSpace, []string{"--config", at("containerd.toml")}},
	} {
		if err := c.processes.start(program); err != nil {
			return err
		}
	}
	return c.startSSH()
}

func (c *cluster) startAPI(ctx context.Context) error {
	client := c.pki.pair("apiserver-client")
	args, err := apiserverArgs(inside, etcdURL, c.pki,
		"--bind-address=0.0.0.0", "--advertise-address="+c.at.Node, "--secure-port=6443",
		"--service-cluster-ip-range="+c.at.Services, "--service-node-port-range=30000-32767",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--kubelet-client-certificate="+client.cert, "--kubelet-client-key="+client.key,
		"--kubelet-certificate-authority="+c.pki.pair("ca").cert, "--kubelet-preferred-address-types=InternalIP")
	if err != nil {
		return err
	}
	if err := c.processes.start(program{"kube-apiserver", cloudSpace, args}); err != nil {
		return err
	}
	if c.client, err = kubernetes.NewForConfig(c.config); err != nil {
		return err
	}
	imported := make(chan error, 1)
	go func() { imported <- importImages(ctx) }()
	if err := waitUntilAPI(c.config, "/livez/ping", c.processes.failed); err != nil {
		return err
	}
	if err := waitForContainerd(ctx); err != nil {
		return err
	}
	// It takes longest, and needs no role: the others start when the API has made those.
	if err := c.processes.start(program{"kubelet", cloudSpace, []string{"--config=" + at("kubelet.yaml"),
		"--kubeconfig=" + at("kubelet-client.kubeconfig"), "--hostname-override=" + nodeName, "--node-ip=" + c.at.Node,
		"--cert-dir=" + at("kubelet-pki"), "-v=2"}}); err != nil {
		return err
	}
	if err := waitUntilAPI(c.config, "/readyz", c.processes.failed); err != nil {
		return err
	}
	return <-imported
}

func (c *cluster) startAbove(ctx context.Context) error {
	ca, key := c.pki.pair("ca"), c.pki.pair("server").key
	manager, scheduler := at("kube-controller-manager.kubeconfig"), at("kube-scheduler.kubeconfig")
	for _, program := range []program{
		{"kube-controller-manager", cloudSpace, []string{"--kubeconfig=" + manager, "--authentication-kubeconfig=" + manager,
			"--authorization-kubeconfig=" + manager, "--use-service-account-credentials", "--service-account-private-key-file=" + key,
			"--root-ca-file=" + ca.cert, "--cluster-signing-cert-file=" + ca.cert, "--cluster-signing-key-file=" + ca.key,
			"--allocate-node-cidrs=false", "--leader-elect=false"}},
		{"kube-scheduler", cloudSpace, []string{"--kubeconfig=" + scheduler, "--authentication-kubeconfig=" + scheduler,
			"--authorization-kubeconfig=" + scheduler, "--leader-elect=false"}},
		{"coredns", cloudSpace, []string{at("Corefile")}},
		{"kube-proxy", cloudSpace, []string{"--config=" + at("kube-proxy.yaml")}},
	} {
		if err := c.processes.start(program); err != nil {
			return err
		}
	}
	c.balancer = startBalancer(context.Background(), c.client, c.at)
	c.policies = startPolicies(context.Background(), c.client)
	return nil
}

func (c *cluster) waitUntilReady(ctx context.Context) error {
	for what, ready := range map[string]func(context.Context) error{
		"node": c.nodeIsReady, "default service account": c.accountIsThere, "policies": c.policies.areInForce,
		"coredns": answers("http://" + c.at.Node + ":8181/ready"), "kube-proxy": answers("http://" + c.at.Node + ":10256/healthz"),
	} {
		for {
			err := ready(ctx)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s: not ready after %s: %w", what, readyWithin, err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

func (c *cluster) nodeIsReady(ctx context.Context) error {
	node, err := c.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == v1.NodeReady && condition.Status != v1.ConditionTrue {
			return fmt.Errorf("%s", condition.Message)
		}
	}
	// The taint goes a moment later.
	if len(node.Spec.Taints) > 0 || len(node.Status.Conditions) == 0 {
		return fmt.Errorf("taints: %v", node.Spec.Taints)
	}
	return nil
}

func (c *cluster) accountIsThere(ctx context.Context) error {
	_, err := c.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
	return err
}

func answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", answer.Status)
		}
		return nil
	}
}

// Imports images of the user into the container runtime.
func importImages(ctx context.Context) error {
	files, err := filepath.Glob("/run/images/*.tar")
	if err != nil {
		return err
	}
	if err := waitForContainerd(ctx); err != nil {
		return err
	}
	for _, file := range files {
		said, err := exec.CommandContext(ctx, "ctr", "-a", containerdRun, "-n", "k8s.io", "images", "import", file).CombinedOutput()
		if err != nil {
			return fmt.Errorf("importing %s: %w: %s", file, err, said)
		}
	}
	return nil
}

func waitForContainerd(ctx context.Context) error {
	for exec.CommandContext(ctx, "ctr", "-a", containerdRun, "version").Run() != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// Kills the containers, as a power-off does, and starts the node's runtime and kubelet again.
func (c *cluster) reboot() error {
	for _, name := range []string{"kubelet", "containerd"} {
		if err := c.processes.stop(name, syscall.SIGKILL); err != nil {
			return err
		}
	}
	killContainers(c.at.Cgroup)
	if err := unmountPods(); err != nil {
		return err
	}
	// The kubelet searches the containers of each group that it finds, which takes seconds per group.
	if err := removeCgroups(filepath.Join(c.at.Cgroup, "kubepods")); err != nil {
		return err
	}
	if err := c.processes.resume("containerd"); err != nil {
		return err
	}
	// A kubelet that finds no runtime ends.
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	if err := waitForContainerd(ctx); err != nil {
		return err
	}
	return c.processes.resume("kubelet")
}
