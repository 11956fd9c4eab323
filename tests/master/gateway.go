package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

const portAnnotation = "determined.ai/det-gateway-port-"

func listenerName(port int) string { return fmt.Sprintf("det-%d", port) }

// The allocation of each listener that has an annotation.
func (m *manager) annotatedPorts(ctx context.Context) (map[int]string, error) {
	object, err := m.gateways.Gateways(m.config.Gateway.Namespace).Get(ctx, m.config.Gateway.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("error getting gateway: %w", err)
	}
	ports := map[int]string{}
	for _, listener := range object.Spec.Listeners {
		if allocation, ok := object.Annotations[portAnnotation+strconv.Itoa(int(listener.Port))]; ok {
			ports[int(listener.Port)] = allocation
		}
	}
	return ports, nil
}

// Reads the whole object and writes it back, again on a conflict. Fields newer than these types get lost.
func (m *manager) updateGateway(ctx context.Context, change func(*gatewayv1.Gateway) error) error {
	gateways := m.gateways.Gateways(m.config.Gateway.Namespace)
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		object, err := gateways.Get(ctx, m.config.Gateway.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if err := change(object); err != nil {
			return err
		}
		_, err = gateways.Update(ctx, object, metav1.UpdateOptions{})
		return err
	})
}

// Adds a listener with an annotation for each port: the lowest ones of the range without a listener.
func (m *manager) takePorts(ctx context.Context, allocation string, count int) ([]int, error) {
	var taken []int
	err := m.updateGateway(ctx, func(object *gatewayv1.Gateway) error {
		taken = nil
		used := map[int]bool{}
		for _, listener := range object.Spec.Listeners {
			used[int(listener.Port)] = true
		}
		start, end := m.config.Gateway.ports()
		for port := start; port <= end && len(taken) < count; port++ {
			if !used[port] {
				taken = append(taken, port)
			}
		}
		if len(taken) < count {
			return fmt.Errorf("no free port in gateway range %d-%d", start, end)
		}
		if object.Annotations == nil {
			object.Annotations = map[string]string{}
		}
		all := gatewayv1.NamespacesFromAll
		for _, port := range taken {
			object.Annotations[portAnnotation+strconv.Itoa(port)] = allocation
			object.Spec.Listeners = append(object.Spec.Listeners, gatewayv1.Listener{
				Name: gatewayv1.SectionName(listenerName(port)), Port: gatewayv1.PortNumber(port), Protocol: gatewayv1.TCPProtocolType,
				AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &all}},
			})
		}
		return nil
	})
	return taken, err
}

// Removes the listeners of these ports, and their annotations; an annotation without a listener stays.
func (m *manager) freePorts(ctx context.Context, ports []int) {
	err := m.updateGateway(ctx, func(object *gatewayv1.Gateway) error {
		object.Spec.Listeners = slices.DeleteFunc(object.Spec.Listeners, func(listener gatewayv1.Listener) bool {
			if !slices.Contains(ports, int(listener.Port)) {
				return false
			}
			delete(object.Annotations, portAnnotation+strconv.Itoa(int(listener.Port)))
			return true
		})
		return nil
	})
	if err != nil {
		note("error freeing gateway ports %v: %v", ports, err)
		return
	}
	note("freed gateway ports %v", ports)
}
