/** Mistakes that the declarations of the packed package must catch; each line below is one. */
import { Cluster, type Report, Status } from "kubeprober/domain"
import { Codes, Needs, Probe, catalogue } from "kubeprober/probes"
import { deploymentPolicy } from "./mine.ts"

export const right = Probe.configure(deploymentPolicy, { minimumReplicas: 3, exempt: ["kube-system"] })
export const worst: Status.Status = Status.worst(["PASS", "WARN"])
export const ids: ReadonlyArray<string> = catalogue.map((probe) => probe.id)
export const group: string = Cluster.Cluster.group
export const message = (report: Report.Report): string => report.message

// @ts-expect-error a string is not a number
export const wrongType = Probe.configure(deploymentPolicy, { minimumReplicas: "3" })
// @ts-expect-error there is no such setting
export const wrongName = Probe.configure(deploymentPolicy, { minimum: 3 })
// @ts-expect-error an array of strings is wanted
export const wrongItem = Probe.configure(deploymentPolicy, { registries: [1] })

const codes = Codes.make({ TOO_HOT: Codes.warn("It is hot.", "Cool it.") })
// @ts-expect-error the code is not declared
export const wrongCode = codes.TOO_COLD({ message: "it is cold" })
// @ts-expect-error there is no such severity among findings
export const wrongStatus: Report.Finding["status"] = "FINE"
// @ts-expect-error a namespace is a name
export const wrongNeed = Needs.list("pods", { namespace: 1 })
