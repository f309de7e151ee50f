#include "slirp/slirp_process.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "slirp/confine.h"
#include "slirp/network.h"

namespace trapline::slirp {

namespace {

void close_all_but(int kept) {
  ::close_range(3, static_cast<unsigned>(kept) - 1, 0);
  ::close_range(static_cast<unsigned>(kept) + 1, ~0u, 0);
}

// What is wrong, or nothing.
std::string set_up(int socket, int argc, char** argv, Library& library, std::unique_ptr<Network>& network) {
  auto loaded = Library::load();
  if (!loaded) return loaded.error();
  library = *loaded;
  network = std::make_unique<Network>(library, socket, argv[3][0] == '1', static_cast<u32>(std::atoi(argv[4])));
  for (int i = 5; i < argc; i++) {
    const auto forward = parse_forward(argv[i]);
    if (!forward) return fmt::format("hostfwd {}: no forward", argv[i]);
    if (std::string wrong = network->forward(*forward); !wrong.empty()) return wrong;
  }
  return confine_process();
}

}  // namespace

int net_main(int argc, char** argv) {
  if (argc < 5) return 2;
  const int socket = std::atoi(argv[2]);
  if (socket < 3) return 2;
  for (const int s : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGPIPE}) ::signal(s, SIG_IGN);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  close_all_but(socket);
  [[maybe_unused]] const int moved = ::chdir("/");
  Library library{};
  std::unique_ptr<Network> network;
  const std::string wrong = set_up(socket, argc, argv, library, network);
  const std::string line = wrong.empty() ? "ok\n" : wrong + "\n";
  ::send(socket, line.data(), line.size(), MSG_NOSIGNAL);
  if (!wrong.empty()) return 1;
  network->run();
  return 0;
}

}  // namespace trapline::slirp
