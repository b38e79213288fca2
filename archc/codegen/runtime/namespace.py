NAMESPACE = "archc_runtime"
