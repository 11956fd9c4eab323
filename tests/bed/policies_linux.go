package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// NetworkPolicies as nftables rules: each change creates all rules again from all pods, and replaces the old ones atomically.
// The node routes all traffic of pods, also between pods, so the rules of the node cover it.
type policies struct {
	factory informers.SharedInformerFactory
	changed chan struct{}
	inForce atomic.Bool
}

func startPolicies(ctx context.Context, client kubernetes.Interface) *policies {
	made := &policies{factory: informers.NewSharedInformerFactory(client, 0), changed: make(chan struct{}, 1)}
	tell := func() {
		select {
		case made.changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { tell() }, UpdateFunc: func(any, any) { tell() }, DeleteFunc: func(any) { tell() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		made.factory.Core().V1().Pods().Informer(), made.factory.Core().V1().Namespaces().Informer(),
		made.factory.Networking().V1().NetworkPolicies().Informer(),
	} {
		_, _ = informer.AddEventHandler(handler)
	}
	made.factory.Start(ctx.Done())
	go made.run(ctx)
	return made
}

func (p *policies) areInForce(context.Context) error {
	if !p.inForce.Load() {
		return fmt.Errorf("no rules yet")
	}
	return nil
}

func (p *policies) run(ctx context.Context) {
	p.factory.WaitForCacheSync(ctx.Done())
	last := ""
	for ctx.Err() == nil {
		rules, err := p.rules()
		if err == nil && rules != last {
			err = runIn(cloudSpace, rules, "nft", "-f", "-")
			last = rules
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "policies:", err)
		} else {
			p.inForce.Store(true)
		}
		<-p.changed
		// Changes often come in groups.
		time.Sleep(10 * time.Millisecond)
	}
}

// A pod with its own address, as policies see it.
type member struct {
	*v1.Pod
	namespace labels.Set
}

type direction struct {
	// The address of the selected pod and that of its peer, in nft's syntax.
	pod, peer string
	isolated  map[string]bool
	accepts   []string
}

func (p *policies) rules() (string, error) {
	members, err := p.members()
	if err != nil {
		return "", err
	}
	all, err := p.factory.Networking().V1().NetworkPolicies().Lister().List(labels.Everything())
	if err != nil {
		return "", err
	}
	ingress := &direction{pod: "ip daddr", peer: "ip saddr", isolated: map[string]bool{}}
	egress := &direction{pod: "ip saddr", peer: "ip daddr", isolated: map[string]bool{}}
	for _, policy := range all {
		selected, err := pick(members, policy.Namespace, nil, &policy.Spec.PodSelector)
		if err != nil {
			return "", err
		}
		for _, kind := range policy.Spec.PolicyTypes {
			switch kind {
			case networking.PolicyTypeIngress:
				ingress.isolate(selected)
				for _, rule := range policy.Spec.Ingress {
					err = ingress.accept(members, policy.Namespace, selected, rule.From, rule.Ports)
				}
			case networking.PolicyTypeEgress:
				egress.isolate(selected)
				for _, rule := range policy.Spec.Egress {
					err = egress.accept(members, policy.Namespace, selected, rule.To, rule.Ports)
				}
			}
			if err != nil {
				return "", fmt.Errorf("%s/%s: %w", policy.Namespace, policy.Name, err)
			}
		}
	}
	return fmt.Sprintf(`table inet policies {}
delete table inet policies
table inet policies {
  chain ingress {
%s  }
  chain egress {
%s  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
%s%s  }
  chain to-node {
    type filter hook input priority filter; policy accept;
    ct state established,related accept
%s  }
}
`, ingress.chain(), egress.chain(), egress.jump("egress"), ingress.jump("ingress"), egress.jump("egress")), nil
}

func (p *policies) members() ([]member, error) {
	pods, err := p.factory.Core().V1().Pods().Lister().List(labels.Everything())
	if err != nil {
		return nil, err
	}
	members := []member{}
	for _, pod := range pods {
		ended := pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
		if pod.Spec.HostNetwork || pod.Status.PodIP == "" || ended {
			continue
		}
		namespace, err := p.factory.Core().V1().Namespaces().Lister().Get(pod.Namespace)
		if err != nil {
			continue
		}
		members = append(members, member{pod, namespace.Labels})
	}
	return members, nil
}

// Selected pods of the selected namespaces, or of the given one; all of their pods without a pod selector.
func pick(members []member, namespace string, namespaces, pods *metav1.LabelSelector) ([]member, error) {
	byNamespace, err := metav1.LabelSelectorAsSelector(namespaces)
	if err != nil {
		return nil, err
	}
	byPod := labels.Everything()
	if pods != nil {
		if byPod, err = metav1.LabelSelectorAsSelector(pods); err != nil {
			return nil, err
		}
	}
	picked := []member{}
	for _, one := range members {
		there := one.Namespace == namespace
		if namespaces != nil {
			there = byNamespace.Matches(one.namespace)
		}
		if there && byPod.Matches(labels.Set(one.Labels)) {
			picked = append(picked, one)
		}
	}
	return picked, nil
}

func (d *direction) isolate(selected []member) {
	for _, pod := range selected {
		d.isolated[pod.Status.PodIP] = true
	}
}

func (d *direction) accept(members []member, namespace string, selected []member, peers []networking.NetworkPolicyPeer, ports []networking.NetworkPolicyPort) error {
	if len(selected) == 0 {
		return nil
	}
	if len(peers) == 0 {
		d.add(selected, members, "", ports)
	}
	for _, peer := range peers {
		if peer.IPBlock != nil {
			match := d.peer + " " + peer.IPBlock.CIDR + " "
			if len(peer.IPBlock.Except) > 0 {
				match += d.peer + " != { " + strings.Join(peer.IPBlock.Except, ", ") + " } "
			}
			d.add(selected, nil, match, ports)
			continue
		}
		picked, err := pick(members, namespace, peer.NamespaceSelector, peer.PodSelector)
		if err != nil {
			return err
		}
		if len(picked) > 0 {
			d.add(selected, picked, d.peer+" "+set(picked)+" ", ports)
		}
	}
	return nil
}

func (d *direction) add(selected, peers []member, match string, ports []networking.NetworkPolicyPort) {
	if len(ports) == 0 {
		d.accepts = append(d.accepts, d.pod+" "+set(selected)+" "+match+"return")
	}
	for _, port := range ports {
		protocol := "tcp"
		if port.Protocol != nil {
			protocol = strings.ToLower(string(*port.Protocol))
		}
		switch {
		case port.Port == nil:
			d.accepts = append(d.accepts, d.pod+" "+set(selected)+" "+match+"meta l4proto "+protocol+" return")
		case port.Port.Type == intstr.Int:
			number := port.Port.String()
			if port.EndPort != nil {
				number = fmt.Sprintf("%s-%d", number, *port.EndPort)
			}
			d.accepts = append(d.accepts, d.pod+" "+set(selected)+" "+match+protocol+" dport "+number+" return")
		default:
			// The container of the pod defines the port of a name.
			behind := selected
			if d.pod == "ip saddr" {
				behind = peers
			}
			for _, pod := range behind {
				for _, number := range numbered(pod, port.Port.StrVal, protocol) {
					d.accepts = append(d.accepts, fmt.Sprintf("%s %s %sip daddr %s %s dport %d return",
						d.pod, set(selected), match, pod.Status.PodIP, protocol, number))
				}
			}
		}
	}
}

func numbered(pod member, name, protocol string) []int32 {
	numbers := []int32{}
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == name && strings.EqualFold(string(port.Protocol), protocol) {
				numbers = append(numbers, port.ContainerPort)
			}
		}
	}
	return numbers
}

func set(members []member) string {
	addresses := map[string]bool{}
	for _, one := range members {
		addresses[one.Status.PodIP] = true
	}
	return braced(addresses)
}

func braced(addresses map[string]bool) string {
	sorted := []string{}
	for address := range addresses {
		sorted = append(sorted, address)
	}
	sort.Strings(sorted)
	return "{ " + strings.Join(sorted, ", ") + " }"
}

func (d *direction) chain() string {
	sort.Strings(d.accepts)
	text := ""
	for _, accept := range d.accepts {
		text += "    " + accept + "\n"
	}
	return text + "    drop\n"
}

func (d *direction) jump(to string) string {
	if len(d.isolated) == 0 {
		return ""
	}
	return "    " + d.pod + " " + braced(d.isolated) + " jump " + to + "\n"
}
