package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Makes an image from a directory: a tar file for `ctr images import`, with the same bytes each time.
func image(args []string) error {
	flags := flag.NewFlagSet("image", flag.ExitOnError)
	reference := flags.String("name", "", "the image's name with its tag")
	root := flags.String("root", "", "the directory")
	out := flags.String("out", "", "the file to write")
	user := flags.String("user", "", "user and group by number")
	_ = flags.Parse(args)
	layer, err := layerOf(*root)
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{
			"Env": []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, "Entrypoint": flags.Args(), "User": *user,
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	if err != nil {
		return err
	}
	const oci = "application/vnd.oci.image."
	describe := func(kind string, content []byte) map[string]any {
		return map[string]any{"mediaType": oci + kind, "digest": digest(content), "size": len(content)}
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
		"config": describe("config.v1+json", config), "layers": []any{describe("layer.v1.tar", layer)},
	})
	if err != nil {
		return err
	}
	listed := describe("manifest.v1+json", manifest)
	listed["annotations"] = map[string]string{"io.containerd.image.name": *reference}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{listed}})
	if err != nil {
		return err
	}
	file, err := os.Create(*out)
	if err != nil {
		return err
	}
	defer file.Close()
	archive := tar.NewWriter(file)
	for _, part := range []struct {
		name    string
		content []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion": "1.0.0"}`)}, {"index.json", index},
		{blob(manifest), manifest}, {blob(config), config}, {blob(layer), layer},
	} {
		if err := archive.WriteHeader(&tar.Header{Name: part.name, Mode: 0o644, Size: int64(len(part.content))}); err != nil {
			return err
		}
		if _, err := archive.Write(part.content); err != nil {
			return err
		}
	}
	return archive.Close()
}

func digest(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

func blob(content []byte) string { return fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(content)) }

// The directory in the order of its names, owned by root, without times.
func layerOf(root string) ([]byte, error) {
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		*header = tar.Header{Typeflag: header.Typeflag, Name: name, Linkname: link, Size: header.Size, Mode: header.Mode}
		if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(archive, file)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = archive.Close()
	return layer.Bytes(), err
}
