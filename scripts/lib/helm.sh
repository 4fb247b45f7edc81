# Sourced by the scripts: finds Helm, or builds it once from its Go module into .tools. Call from the repository's root.

sens_helm_version=v3.22.0
sens_kubernetes_version=1.34.0

sens_helm() { # sets SENS_HELM to a program; returns 1, and says why, when there is none
    local built=$PWD/.tools/helm-$sens_helm_version
    if SENS_HELM=$(command -v helm); then return 0; fi
    SENS_HELM=$built
    if [ -x "$built" ]; then return 0; fi
    local go # where Go's own installation puts it, when it is not on PATH
    if ! go=$(PATH=$PATH:${SENS_GO_FOLDER:-/usr/local/go/bin} command -v go); then
        echo "Helm is missing: install helm, or Go, with which these scripts build it once." >&2
        return 1
    fi
    echo "Building Helm $sens_helm_version with Go, once; this takes a minute or two" >&2
    if ! HOME=${HOME:-$PWD/.tools/home} GOBIN=$PWD/.tools/build-$$ "$go" install -trimpath -ldflags '-s -w' "helm.sh/helm/v3/cmd/helm@$sens_helm_version" >&2; then
        rm -rf ".tools/build-$$"
        echo "Helm could not be built; the lines above say why. Install helm, or see to it that Go's modules can be reached." >&2
        return 1
    fi
    mv ".tools/build-$$/helm" "$built"
    rmdir ".tools/build-$$"
}

sens_helm_template() { # release, values file, then further arguments for helm
    local release=$1 values=$2
    shift 2
    # A Helm that Go built knows no Kubernetes version by itself.
    "$SENS_HELM" template "$release" infra/helm/sens-platform --namespace "$release" --values "$values" \
        --kube-version "$sens_kubernetes_version" "$@"
}
