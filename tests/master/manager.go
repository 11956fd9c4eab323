package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	k8serrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	alphav1alpha2 "sigs.k8s.io/gateway-api/apis/v1alpha2"
	gatewaytyped "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned/typed/apis/v1"
	gatewayalpha "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned/typed/apis/v1alpha2"
)

const (
	label           = "determined"
	workers         = 5
	healthEvery     = 15 * time.Second
	containerName   = "determined-container"
	preemptionLabel = "determined-preemption"
	systemLabel     = "determined-system"
)

// A Kubernetes resource manager: its clients, its namespaces, and its lock, which is held during the request for the headers
// of a pod's log.
type manager struct {
	config   *managerConfig
	database *database
	client   kubernetes.Interface
	gateways gatewaytyped.GatewayV1Interface
	routes   gatewayalpha.GatewayV1alpha2Interface
	requests chan func()
	fatal    func(format string, args ...any)
	master   address

	mutex sync.Mutex
	// Namespaces at the start have clients for Services and TCPRoutes; those bound later lack them until the next start.
	atStart    []string
	namespaces []string
	streaming  map[string]bool
	// By allocation: tasks that this run started or restored. Other tasks are not followed.
	attached map[string]*task
}

// The address of the master for tasks.
type address struct {
	scheme, host string
	port         int
}

// Starts it with the requests of the real master, in order.
func startManager(ctx context.Context, config *managerConfig, database *database, requests *requestLog, fatal func(string, ...any)) (*manager, error) {
	// As client-go reads it, once.
	loaded, err := clientcmd.BuildConfigFromFlags("", config.KubeconfigPath)
	if err != nil {
		return nil, fmt.Errorf("error building kubernetes config: %w", err)
	}
	loaded.Wrap(requests.wrap)
	m := &manager{config: config, database: database, fatal: fatal, requests: make(chan func(), 4096), streaming: map[string]bool{}, attached: map[string]*task{}}
	if m.client, err = kubernetes.NewForConfig(loaded); err != nil {
		return nil, err
	}
	if m.gateways, err = gatewaytyped.NewForConfig(loaded); err != nil {
		return nil, err
	}
	if m.routes, err = gatewayalpha.NewForConfig(loaded); err != nil {
		return nil, err
	}
	m.master = address{config.MasterScheme, config.MasterHost, config.MasterPort}
	if m.master.scheme == "" {
		m.master.scheme = "http"
	}
	database.read(func() { m.namespaces = slices.Sorted(maps.Values(database.Bindings[config.name()])) })
	m.namespaces = append(slices.DeleteFunc(slices.Compact(m.namespaces), func(name string) bool { return name == config.namespace() }), config.namespace())
	m.atStart = slices.Clone(m.namespaces)

	if _, err := m.client.CoreV1().Pods(config.namespace()).List(ctx, metav1.ListOptions{LabelSelector: systemLabel}); err != nil {
		return nil, fmt.Errorf("error getting system resource requests: %w", err)
	}
	for range workers {
		go m.work(ctx)
	}
	if err := m.endStrangers(ctx); err != nil {
		return nil, fmt.Errorf("could not initialize resource manager(s): %w", err)
	}
	if err := m.watchNodes(ctx); err != nil {
		return nil, err
	}
	for _, namespace := range m.namespaces {
		if err := m.watchNamespace(ctx, namespace); err != nil {
			return nil, err
		}
	}
	if _, err := m.client.CoreV1().Namespaces().Get(ctx, config.namespace(), metav1.GetOptions{}); err != nil {
		return nil, fmt.Errorf("error verifying default namespace existence for cluster '%s': %w", config.name(), err)
	}
	go m.checkHealth(ctx)
	return m, nil
}

func (m *manager) work(ctx context.Context) {
	for {
		select {
		case request := <-m.requests:
			request()
		case <-ctx.Done():
			return
		}
	}
}

func (m *manager) checkHealth(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(healthEvery):
		}
		_, err := m.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{Limit: 1})
		if k8serrors.IsForbidden(err) {
			for _, namespace := range m.known() {
				_, _ = m.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: 1})
			}
		}
	}
}

// Tasks that ran when the master ended.
func (m *manager) unrestored() []*task {
	tasks := []*task{}
	m.database.read(func() {
		for _, t := range m.database.Tasks {
			if t.Manager == m.config.name() && !t.ended() {
				tasks = append(tasks, t)
			}
		}
	})
	return tasks
}

func (m *manager) known() []string {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return slices.Clone(m.namespaces)
}

// Objects of tasks in the cluster.
type found struct {
	jobs       []batchv1.Job
	configMaps []corev1.ConfigMap
	services   []corev1.Service
	routes     []alphav1alpha2.TCPRoute
	// The allocation of each annotated port of the Gateway.
	ports map[int]string
}

// Lists the existing objects of one allocation or of all.
func (m *manager) list(ctx context.Context, selector string, namespaces []string) (*found, error) {
	options := metav1.ListOptions{LabelSelector: selector}
	all := &found{}
	jobs, err := m.listJobs(ctx, options, namespaces)
	if err != nil {
		return nil, fmt.Errorf("error listing existing pods: %w", err)
	}
	all.jobs = jobs
	for _, namespace := range namespaces {
		list, err := m.client.CoreV1().ConfigMaps(namespace).List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("error listing existing config maps: %w", err)
		}
		all.configMaps = append(all.configMaps, list.Items...)
	}
	if m.config.Gateway == nil {
		return all, nil
	}
	for _, namespace := range namespaces {
		list, err := m.client.CoreV1().Services(namespace).List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("error listing existing services: %w", err)
		}
		all.services = append(all.services, list.Items...)
	}
	for _, namespace := range namespaces {
		list, err := m.routes.TCPRoutes(namespace).List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("error listing existing TCPRoutes: %w", err)
		}
		all.routes = append(all.routes, list.Items...)
	}
	all.ports, err = m.annotatedPorts(ctx)
	return all, err
}

// Jobs of the whole cluster. If refused, it lists each namespace, and then the whole cluster again, which fails.
func (m *manager) listJobs(ctx context.Context, options metav1.ListOptions, namespaces []string) ([]batchv1.Job, error) {
	list, err := m.client.BatchV1().Jobs("").List(ctx, options)
	if err == nil {
		return slices.DeleteFunc(list.Items, func(job batchv1.Job) bool { return !slices.Contains(namespaces, job.Namespace) }), nil
	}
	if !k8serrors.IsForbidden(err) {
		return nil, err
	}
	for _, namespace := range append(slices.Clone(namespaces), "") {
		if _, err := m.client.BatchV1().Jobs(namespace).List(ctx, options); err != nil {
			return nil, fmt.Errorf("error listing pods for namespace %s: %w", namespace, err)
		}
	}
	return list.Items, nil
}

// Deletes objects of unknown tasks, and frees every annotated port without a restorable task.
func (m *manager) endStrangers(ctx context.Context) error {
	all, err := m.list(ctx, label, m.namespaces)
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	m.database.read(func() {
		for _, task := range m.database.Tasks {
			ours[task.allocation()] = !task.ended()
		}
	})
	stranger := func(object metav1.Object) bool { return !ours[object.GetLabels()[label]] }
	for _, one := range all.jobs {
		if stranger(&one) {
			m.requests <- func() { m.deleteJob(ctx, one.Namespace, one.Name) }
		}
	}
	for _, one := range all.configMaps {
		if stranger(&one) {
			m.requests <- func() { m.deleteConfigMap(ctx, one.Namespace, one.Name) }
		}
	}
	for _, one := range all.services {
		if stranger(&one) {
			m.requests <- func() { m.deleteService(ctx, one.Namespace, one.Name) }
		}
	}
	routed := map[string]bool{}
	for _, one := range all.routes {
		if stranger(&one) {
			m.requests <- func() { m.deleteRoute(ctx, one.Namespace, one.Name) }
			continue
		}
		routed[one.Labels[label]] = true
	}
	free := []int{}
	for port, allocation := range all.ports {
		if !ours[allocation] || !routed[allocation] {
			free = append(free, port)
		}
	}
	if sort.Ints(free); len(free) > 0 {
		m.requests <- func() { m.freePorts(ctx, free) }
	}
	return nil
}
