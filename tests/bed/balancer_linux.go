package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// A cloud's load balancer: each Service of that type gets an address on the switch, which the node answers for.
type balancer struct {
	client   kubernetes.Interface
	at       addresses
	services listers.ServiceLister

	mutex sync.Mutex
	off   bool
	given map[types.UID]string
}

func startBalancer(ctx context.Context, client kubernetes.Interface, at addresses) *balancer {
	factory := informers.NewSharedInformerFactory(client, 0)
	services := factory.Core().V1().Services()
	made := &balancer{client: client, at: at, services: services.Lister(), given: map[types.UID]string{}}
	_, _ = services.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { made.logged(made.serve()) },
		UpdateFunc: func(any, any) { made.logged(made.serve()) },
		DeleteFunc: func(any) { made.logged(made.serve()) },
	})
	factory.Start(ctx.Done())
	return made
}

func (b *balancer) logged(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "load balancer:", err)
	}
}

// While off, it assigns no addresses; assigned ones stay.
func (b *balancer) set(on bool) error {
	b.mutex.Lock()
	b.off = !on
	b.mutex.Unlock()
	return b.serve()
}

func (b *balancer) serve() error {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	services, err := b.services.List(labels.Everything())
	if err != nil {
		return err
	}
	wanted := map[types.UID]*v1.Service{}
	for _, service := range services {
		if service.Spec.Type == v1.ServiceTypeLoadBalancer {
			wanted[service.UID] = service
		}
	}
	for uid, address := range b.given {
		if wanted[uid] == nil {
			delete(b.given, uid)
			if err := ip(cloudSpace, "addr del "+address+"/32 dev eth0"); err != nil {
				return err
			}
		}
	}
	for uid, service := range wanted {
		if b.given[uid] == "" && !b.off {
			if err := b.give(service); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *balancer) give(service *v1.Service) error {
	taken := map[string]bool{}
	for _, address := range b.given {
		taken[address] = true
	}
	for n := range balancers {
		address := b.at.balancer(n)
		if taken[address] {
			continue
		}
		if err := ip(cloudSpace, "addr add "+address+"/32 dev eth0"); err != nil {
			return err
		}
		b.given[service.UID] = address
		status := map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": []any{map[string]any{"ip": address}}}}}
		patch, err := json.Marshal(status)
		if err != nil {
			return err
		}
		_, err = b.client.CoreV1().Services(service.Namespace).Patch(context.Background(), service.Name,
			types.MergePatchType, patch, metav1.PatchOptions{}, "status")
		return err
	}
	return fmt.Errorf("no address is left")
}
