package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

type pair struct{ cert, key string }

// Files of a certificate authority and of what it signed.
type pki struct{ ca, server, admin pair }

func makePKI(dir string) (*pki, error) {
	at := func(name string) pair {
		return pair{filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")}
	}
	made := &pki{at("ca"), at("server"), at("admin")}
	if _, err := os.Stat(made.admin.key); err == nil {
		return made, nil
	}
	ca, err := sign(nil, made.ca, x509.Certificate{
		Subject: pkix.Name{CommonName: "devcluster-tests"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	if err != nil {
		return nil, err
	}
	_, err = sign(ca, made.server, x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:    []string{"localhost"},
	})
	if err != nil {
		return nil, err
	}
	_, err = sign(ca, made.admin, x509.Certificate{
		Subject:     pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return made, err
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Signs with the authority, or makes one where there is none yet.
func sign(by *authority, files pair, template x509.Certificate) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if !template.IsCA {
		template.KeyUsage = x509.KeyUsageDigitalSignature
	}
	made := &authority{&template, key}
	if by == nil {
		by = made
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, by.cert, key.Public(), by.key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(files.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return nil, err
	}
	return made, os.WriteFile(files.key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600)
}

// The admin's kubeconfig, everything in one file, and the same for use in here.
func (p *pki) writeKubeconfig(path, server string) (*rest.Config, error) {
	read := func(file string) []byte {
		content, _ := os.ReadFile(file)
		return content
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["real"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: read(p.ca.cert)}
	config.AuthInfos["admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: read(p.admin.cert), ClientKeyData: read(p.admin.key)}
	config.Contexts["real"] = &clientcmdapi.Context{Cluster: "real", AuthInfo: "admin"}
	config.CurrentContext = "real"
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return nil, err
	}
	client, err := clientcmd.NewDefaultClientConfig(*config, nil).ClientConfig()
	if err != nil {
		return nil, err
	}
	client.QPS, client.Burst = -1, -1
	return client, nil
}
