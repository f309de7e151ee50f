#include "devices/virtio/ring.h"

#include "devices/virtio/layout.h"

namespace trapline::devices::virtio {

Ring::Ring(Dma& dma, u16 size, u64 features, const RingPosition& at)
    : dma_{dma},
      size_{size},
      indirect_{(features & feature::indirect_desc) != 0},
      events_{(features & feature::event_index) != 0},
      at_{at} {}

}  // namespace trapline::devices::virtio
