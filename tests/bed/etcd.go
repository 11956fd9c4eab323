package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// Starts etcd and returns the URL at which the apiserver finds it.
func startEtcd(ctx context.Context, dir, assets string, failed chan<- error) (string, error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	peerPort, err := freePort()
	if err != nil {
		return "", err
	}
	client := url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(port)}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(peerPort)}
	data := filepath.Join(dir, "etcd")
	if assets != "" {
		startChild(ctx, filepath.Join(assets, "etcd"), []string{
			"--data-dir=" + data, "--unsafe-no-fsync", "--force-new-cluster",
			"--listen-client-urls=" + client.String(), "--advertise-client-urls=" + client.String(),
			"--listen-peer-urls=" + peer.String(), "--initial-advertise-peer-urls=" + peer.String(),
			"--initial-cluster=default=" + peer.String(),
		}, failed)
		return client.String(), nil
	}
	config := embed.NewConfig()
	config.Dir = data
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	// Other processes may use the ports of the previous run now.
	config.ForceNewCluster = true
	// No test survives a power-off.
	config.UnsafeNoFsync = true
	config.LogLevel = "error"
	config.LogOutputs = []string{filepath.Join(dir, "etcd.log")}
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return "", err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return client.String(), nil
	case err := <-etcd.Err():
		return "", err
	case <-time.After(30 * time.Second):
		return "", fmt.Errorf("etcd is not ready after 30 s")
	}
}
