package main

import (
	"context"
	"fmt"
	"os"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func init() {
	verbs["up"] = up
	// Parts of `up`, each a separate process.
	verbs["init"], verbs["node"], verbs["watch"] = initProcess, node, watch
	for name, program := range components {
		programs[name] = program
	}
}

var components = map[string]func() int{
	"etcd":                    etcd,
	"coredns":                 coredns,
	"kube-apiserver":          command(func() *cobra.Command { return apiserver.NewAPIServerCommand() }),
	"kube-controller-manager": command(func() *cobra.Command { return controllermanager.NewControllerManagerCommand() }),
	"kube-scheduler":          command(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubelet":                 command(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"kube-proxy":              command(func() *cobra.Command { return kubeproxy.NewProxyCommand() }),
	"kubectl":                 command(func() *cobra.Command { return kubectl.NewDefaultKubectlCommand() }),
}

func command(build func() *cobra.Command) func() int {
	return func() int { return cli.Run(build()) }
}

func etcd() int {
	etcdmain.Main(os.Args)
	return 0
}

// CoreDNS without its main, whose flags would also be those of the other programs in this binary.
func coredns() int {
	caddy.Quiet = true
	text, err := os.ReadFile(os.Args[1])
	if err == nil {
		var server *caddy.Instance
		server, err = caddy.Start(caddy.CaddyfileInput{Filepath: os.Args[1], Contents: text, ServerTypeName: "dns"})
		if err == nil {
			server.Wait()
			return 0
		}
	}
	fmt.Fprintln(os.Stderr, "coredns on port "+dnsserver.Port+":", err)
	return 1
}
