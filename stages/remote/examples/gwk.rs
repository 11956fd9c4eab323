use remote::sandbox::kube_api::*;
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut o = Options {
        programmed_after: None,
        ..Options::default()
    };
    for g in &mut o.objects {
        if g["kind"] == "Gateway" {
            seed::program(g, "127.0.0.1");
        }
    }
    for i in 0..std::env::args().nth(1).unwrap().parse().unwrap() {
        let mut g = seed::gateway("zz", &format!("g{i}"), "contour");
        seed::program(&mut g, "10.0.0.1");
        o.objects.push(g);
    }
    let api = KubeApi::start(o).await.unwrap();
    api.write_kubeconfig("/tmp/gatewayeng/kc".as_ref(), "sandbox")
        .unwrap();
    eprintln!("up");
    tokio::time::sleep(std::time::Duration::from_secs(15)).await;
}
