/** An error of several lines as one. In time proportional to its length: it may quote what a server answered. */
export const flatten = ({ message }: { readonly message: string }): string =>
  message.split("\n").map((line) => line.trim()).filter((line) => line !== "").join(" ")
