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

// The subject of a certificate. File names the two files; with addresses, it is a server certificate.
type identity struct {
	file      string
	user      string
	groups    []string
	addresses []net.IP
	names     []string
}

var admin = identity{file: "admin", user: "admin", groups: []string{"system:masters"}}

// A directory with a certificate authority and what it signed.
type pki string

func (p pki) pair(name string) pair {
	return pair{filepath.Join(string(p), name+".crt"), filepath.Join(string(p), name+".key")}
}

// If the last identity's files exist, an earlier run created all of them.
func makePKI(dir string, identities ...identity) (pki, error) {
	made := pki(dir)
	if _, err := os.Stat(made.pair(identities[len(identities)-1].file).key); err == nil {
		return made, nil
	}
	ca, err := sign(nil, made.pair("ca"), x509.Certificate{
		Subject: pkix.Name{CommonName: "devcluster-tests"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	if err != nil {
		return "", err
	}
	for _, who := range identities {
		usage := x509.ExtKeyUsageClientAuth
		if who.addresses != nil {
			usage = x509.ExtKeyUsageServerAuth
		}
		_, err := sign(ca, made.pair(who.file), x509.Certificate{
			Subject:     pkix.Name{CommonName: who.user, Organization: who.groups},
			ExtKeyUsage: []x509.ExtKeyUsage{usage},
			IPAddresses: who.addresses,
			DNSNames:    who.names,
		})
		if err != nil {
			return "", err
		}
	}
	return made, nil
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Signs with the authority, which it makes first if necessary.
func sign(by *authority, files pair, template x509.Certificate) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(30*24*time.Hour)
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

// A kubeconfig of that user in one file, and the same for use in this process.
func (p pki) writeKubeconfig(path, server, user string) (*rest.Config, error) {
	read := func(file string) []byte {
		content, _ := os.ReadFile(file)
		return content
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["real"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: read(p.pair("ca").cert)}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: read(p.pair(user).cert), ClientKeyData: read(p.pair(user).key)}
	config.Contexts["real"] = &clientcmdapi.Context{Cluster: "real", AuthInfo: user}
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
