package main

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	k8serrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"
)

// A RetryWatcher stops when it has lost its history: then the real master crashes.
func (m *manager) watchForGood(ctx context.Context, name, version string, start func(metav1.ListOptions) (watch.Interface, error)) error {
	watcher, err := toolswatch.NewRetryWatcher(version, &cache.ListWatch{WatchFunc: start})
	if err != nil {
		return fmt.Errorf("error initializing %s retry watcher: %w", name, err)
	}
	go func() {
		for range watcher.ResultChan() {
		}
		if ctx.Err() == nil {
			m.fatal("panic: retry watcher on %s stopped unexpectedly", name)
		}
	}()
	return nil
}

func (m *manager) watchNodes(ctx context.Context) error {
	nodes := m.client.CoreV1().Nodes()
	list, err := nodes.List(ctx, metav1.ListOptions{})
	if k8serrors.IsForbidden(err) {
		note("unable to start node informer due to permission error,some features will be degraded: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	return m.watchForGood(ctx, "node", list.ResourceVersion, func(options metav1.ListOptions) (watch.Interface, error) {
		return nodes.Watch(ctx, options)
	})
}

func (m *manager) watchNamespace(ctx context.Context, namespace string) error {
	if err := m.watchEvents(ctx, namespace); err != nil {
		return err
	}
	pods := m.client.CoreV1().Pods(namespace)
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: preemptionLabel})
	if err != nil {
		return fmt.Errorf("error listing pods with the preemption label: %w", err)
	}
	err = m.watchForGood(ctx, "preemption", list.ResourceVersion, func(options metav1.ListOptions) (watch.Interface, error) {
		options.LabelSelector = preemptionLabel
		return pods.Watch(ctx, options)
	})
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(m.client, 0, informers.WithNamespace(namespace))
	_, _ = factory.Batch().V1().Jobs().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		DeleteFunc: func(object any) {
			if job, ok := object.(*batchv1.Job); ok {
				m.jobIsGone(ctx, job.Labels[label])
			}
		},
	})
	_, _ = factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { m.podChanged(ctx, object.(*corev1.Pod)) },
		UpdateFunc: func(_, object any) { m.podChanged(ctx, object.(*corev1.Pod)) },
	})
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return nil
}

// Its watch has no resourceVersion, and starts with all existing objects.
func (m *manager) watchEvents(ctx context.Context, namespace string) error {
	events := m.client.CoreV1().Events(namespace)
	if _, err := events.List(ctx, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("error listing events: %w", err)
	}
	go func() {
		for ctx.Err() == nil {
			if watcher, err := events.Watch(ctx, metav1.ListOptions{}); err == nil {
				for range watcher.ResultChan() {
				}
			}
			time.Sleep(time.Second)
		}
	}()
	return nil
}
